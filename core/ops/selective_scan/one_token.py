"""The scan over one token, the step of decoding: its state update without the operator machinery around it."""

from __future__ import annotations

import torch
from torch import Tensor

from ..team import run_at
from .one_token_kernel import update_state

# States that a thread updates at a time: fewer are quicker done than a second thread is woken.
ITEM_STATES = 1 << 17


def one_token(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None, delta_bias: Tensor | None,
    delta_softplus: bool, state: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """One path, one group, length 1; arguments and results as selective_scan's."""
    (batch, _, channels), states, kind = x.shape, A.shape[1], x.dtype
    x, delta, B, C, z = (t if t is None else _rows(t) for t in (x, delta, B, C, z))
    A, D, delta_bias, state = (t if t is None else t.float().contiguous() for t in (A, D, delta_bias, state))
    out = torch.empty((batch, 1, channels), dtype=torch.float32)
    after = torch.empty((batch, channels, states), dtype=torch.float32)
    given = (x, delta, A, B, C, D, z, delta_bias, state)
    items = batch * max(1, min(channels // 64, channels * states // ITEM_STATES))
    run_at(
        update_state, items,
        (*(0 if t is None else t.data_ptr() for t in given), out.data_ptr(), after.data_ptr(), x.stride(0), delta.stride(0),
         B.stride(0), C.stride(0), 0 if z is None else z.stride(0), batch, channels, states, int(delta_softplus), items, 0),
    )  # fmt: skip
    return out.to(kind), after


def _rows(tensor: Tensor) -> Tensor:
    tensor = tensor.float()
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()
