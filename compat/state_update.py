"""mamba_ssm's one-token state update (ops/triton/selective_state_update.py)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.ops.selective_scan import selective_scan


@torch.no_grad()
def selective_state_update(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
    state_batch_indices: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """One step of the scan of Mamba-1 or Mamba-2; moves `state` on, in place.

    Args:
        state: (slots, channels, states) or (slots, heads, headdim, states).
        x, dt, z: (batch, channels) or (batch, heads, headdim).
        A: (channels, states) or (heads, headdim, states). D, dt_bias: (channels,) or (heads, headdim).
        B, C: (batch, states) or (batch, groups, states).
        state_batch_indices: (batch,), the slot of each sequence; negative: padding, no slot is touched.

    Returns:
        Shaped like x, in its dtype; zero for padding.
    """

    def rows(t: Tensor | None, axes: int) -> Tensor | None:
        """Heads and their channels as one axis, before the last `axes` ones."""
        return t if t is None or state.dim() == 3 else t.flatten(-2 - axes, -1 - axes)

    slot = None if state_batch_indices is None else state_batch_indices.long()
    before = rows(state if slot is None else state[slot.clamp_min(0)], 1)
    A, D, dt_bias = rows(A, 1), rows(D, 0), rows(dt_bias, 0)
    tokens = [None if t is None else rows(t, 0)[:, None] for t in (x, dt, z)]
    y, after = selective_scan(
        *tokens[:2], A.float(), B[:, None], C[:, None], D, tokens[2], dt_bias, dt_softplus, initial_state=before.float(),
        return_final_state=True, backend=backend,
    )  # fmt: skip
    after = after.view(-1, *state.shape[1:])
    if slot is None:
        state.copy_(after)
    else:
        state[slot[slot >= 0]] = after[slot >= 0].to(state.dtype)
        y = y.masked_fill((slot < 0)[:, None, None], 0)
    return y.view(x.shape)


def selective_state_update_ref(state, x, dt, A, B, C, D=None, z=None, dt_bias=None, dt_softplus=False):
    """selective_state_update in plain PyTorch."""
    return selective_state_update(state, x, dt, A, B, C, D, z, dt_bias, dt_softplus, backend="reference")
