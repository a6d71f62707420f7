"""mamba_ssm's one-token state update (ops/triton/selective_state_update.py)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


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
) -> Tensor:
    """One step of the scan of Mamba-1 or Mamba-2; moves `state` on, in place.

    Args:
        state: (slots, channels, states) or (slots, heads, headdim, states).
        x, dt, z: (batch, channels) or (batch, heads, headdim).
        A: (channels, states) or (heads, headdim, states). D, dt_bias: (channels,) or (heads, headdim).
        B, C: (batch, states) or (batch, groups, states).
        state_batch_indices: (batch,), the slot of each sequence; negative: padding, left alone.

    Returns:
        Shaped like x, in its dtype.
    """
    flat = state.dim() == 3
    if flat:
        x, dt, z, A, D, dt_bias, now = (
            t if t is None else t.unsqueeze(at)
            for t, at in ((x, 1), (dt, 1), (z, 1), (A, 0), (D, 0), (dt_bias, 0), (state, 1))
        )
    else:
        now = state
    heads = x.shape[1]
    B, C = (_by_head(t, heads) for t in (B, C))
    slot = None if state_batch_indices is None else state_batch_indices.long()
    before = (now if slot is None else now[slot.clamp_min(0)]).float()
    step = dt.float() if dt_bias is None else dt.float() + dt_bias.float()
    step = F.softplus(step) if dt_softplus else step
    after = torch.exp(step[..., None] * A.float()) * before + (step * x.float())[..., None] * B
    y = (after * C).sum(-1)
    y = y if D is None else y + D.float() * x.float()
    y = y if z is None else y * F.silu(z.float())
    if slot is None:
        now.copy_(after)
    else:
        now[slot[slot >= 0]] = after[slot >= 0].to(now.dtype)
    return (y.squeeze(1) if flat else y).to(x.dtype)


def _by_head(t: Tensor, heads: int) -> Tensor:
    """B or C of each head, (batch, heads, 1, states)."""
    t = t.unsqueeze(1) if t.dim() == 2 else t
    return t.float().repeat_interleave(heads // t.shape[1], dim=1).unsqueeze(2)
