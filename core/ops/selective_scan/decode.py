"""The scan over one token, the step of decoding: its state update without the operator machinery around it."""

from __future__ import annotations

from torch import Tensor

from ..cpu.calls import address, record, rows, run, whole
from ..cpu.memory import empty
from .decode_kernel import update_state

# States that a thread updates at a time: fewer are quicker done than a second thread is woken.
ITEM_STATES = 1 << 17


def decode(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None, delta_bias: Tensor | None,
    delta_softplus: bool, state: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """One path, one group, length 1; arguments and results as selective_scan's."""
    (batch, _, channels), states, kind = x.shape, A.shape[1], x.dtype
    x, delta, B, C, z = (t if t is None else rows(t) for t in (x, delta, B, C, z))
    A, D, delta_bias, state = (whole(t) for t in (A, D, delta_bias, state))
    out, after = empty(batch, 1, channels), empty(batch, channels, states)
    items = batch * max(1, min(channels // 64, channels * states // ITEM_STATES))
    row, shared, vector = (batch, 1, channels), (batch, 1, states), (channels,)
    told = record(
        update_state, x=address("x", x, row, walked=1), delta=address("delta", delta, row, walked=1),
        A=address("A", A, (channels, states)), B=address("B", B, shared, walked=1), C=address("C", C, shared, walked=1),
        D=address("D", D, vector), z=address("z", z, row, walked=1), bias=address("bias", delta_bias, vector),
        state=address("state", state, after.shape), out=address("out", out, row), after=address("after", after, after.shape),
        x_batch=x.stride(0), delta_batch=delta.stride(0), B_batch=B.stride(0), C_batch=C.stride(0),
        z_batch=0 if z is None else z.stride(0), batch=batch, channels=channels, N=states, softplus=delta_softplus, items=items,
    )  # fmt: skip
    run(update_state, items, told)
    return out.to(kind), after
