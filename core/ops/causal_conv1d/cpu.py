"""The causal convolution on the CPU: memory, records and threads around cpu_kernels.py. Contract: registration.py."""

from __future__ import annotations

import torch

from ..arguments import empty_by_path, empty_rows
from ..lanes import WIDTH
from ..memory import empty
from ..team import KernelCall, rows
from ..visits import visits
from .cpu_kernels import RECORD, K, backward_conv, forward_conv

# Work items wanted per call, so that two to sixteen threads share the work evenly; and the widest item, in blocks.
ITEMS_WANTED, WIDEST = 16, 64


def forward(x, weight, bias, activation, order, seq_idx, initial_state):
    """Outputs and final state."""
    (batch, _, length, channels), (paths, _, width) = x.shape, weight.shape
    call = _Call(x, weight, bias, activation, order, seq_idx, initial_state, items_per_sequence=paths)
    out = empty_by_path(empty, batch, paths, length, channels)
    if not call.covers:
        out.zero_()
    final = torch.empty(batch, paths, channels, width - 1)
    call.point(out=out, final=final)
    call.walk("out", out, "batch", "path")
    call.run(forward_conv, scratch_floats=WIDTH * (call.widest * (width + 1) + K + width))
    return out.to(x.dtype), final


def backward(grad_out, grad_state, x, weight, bias, activation, order, seq_idx, initial_state):
    """Gradients of every differentiable input."""
    (batch, _, _, channels), (paths, _, width) = x.shape, weight.shape
    call = _Call(x, weight, bias, activation, order, seq_idx, initial_state, items_per_sequence=1)
    dx = empty_rows(empty, x)
    if not call.covers:
        dx.zero_()
    dweight, dbias = torch.empty(batch, paths, channels, width), torch.empty(batch, paths, channels)
    dinitial = None if initial_state is None else torch.empty(initial_state.shape)
    grad_final = None if grad_state is None else grad_state.float().contiguous()
    grad_out = rows(grad_out)
    call.point(grad_out=grad_out, grad_final=grad_final, dx=dx, dweight=dweight, dbias=dbias, dinitial=dinitial)
    call.walk("grad", grad_out, "batch", "path", "token")
    call.walk("dx", dx, "batch", "path")
    call.run(backward_conv, scratch_floats=WIDTH * (call.widest * 2 * (width + 1) + 2 * K + 3 * width + 1))
    found = (dx, dweight.sum(0), None if bias is None else dbias.sum(0), dinitial)
    given = (x, weight, bias, initial_state)
    return tuple(None if t is None else g.to(t.dtype) for t, g in zip(given, found, strict=True))


class _Call(KernelCall):
    """What forward and backward tell the kernels alike."""

    def __init__(self, x, weight, bias, activation, order, seq_idx, initial_state, items_per_sequence: int):
        super().__init__(RECORD)
        (batch, _, length, channels), (paths, _, width) = x.shape, weight.shape
        order = None if order is None else order.to(torch.int32).contiguous()
        steps = length if order is None else order.shape[2]
        self.covers = bool(visits(order, length, paths).all())
        blocks = -(-channels // WIDTH)
        sequences = max(1, batch * items_per_sequence)
        splits = min(blocks, max(-(-blocks // WIDEST), -(-ITEMS_WANTED // sequences)))
        self.widest = -(-blocks // max(1, splits))
        self.set(
            batch=batch, paths=paths, length=length, steps=steps, channels=channels, W=width, splits=splits, blocks=blocks,
            silu=activation == "silu", items=sequences * splits if batch else 0,
        )  # fmt: skip
        x, seq = rows(x), None if seq_idx is None else seq_idx.to(torch.int32).contiguous()
        weight, bias, initial_state = (
            t if t is None else t.float().contiguous() for t in (weight, bias, initial_state)
        )
        self.point(x=x, weight=weight, bias=bias, initial=initial_state, order=order, seq=seq)
        self.walk("x", x, "batch", "path", "token")
        if order is not None:
            self.walk("order", order, "batch", "path")
