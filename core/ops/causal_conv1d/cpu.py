"""The causal convolution on the CPU: memory, records and threads around cpu_kernels.py. Contract: registration.py."""

from __future__ import annotations

from functools import lru_cache

import torch

from ..arguments import empty_by_path, empty_rows, owned, total
from ..cpu.calls import KernelCall, rows, whole
from ..cpu.lanes import WIDTH
from ..cpu.memory import empty
from ..visits import visits
from .cpu_kernels import backward_conv, forward_conv
from .cpu_layout_kernels import RECORD, K

# Work items wanted per call, so that two to sixteen threads share the work evenly; and the widest item, in blocks.
ITEMS_WANTED, WIDEST = 16, 64


def forward(x, weight, bias, activation, order, seq_idx, initial_state):
    """Outputs and final state."""
    (batch, _, length, channels), (paths, _, width) = x.shape, weight.shape
    call = _Call(x, weight, bias, activation, order, seq_idx, initial_state, items_per_sequence=paths)
    out = empty_by_path(empty, batch, paths, length, channels)
    if not call.covers:
        out.zero_()
    final = empty(batch, paths, channels, width - 1)
    call.point(final=final)
    call.walk("out", out, "batch", "path")
    call.run(forward_conv, scratch_floats=WIDTH * (call.widest * (width + 1) + K + width))
    return owned(out.to(x.dtype)), final


def backward(grad_out, grad_state, x, weight, bias, activation, order, seq_idx, initial_state, dx=None):
    """Gradients of every differentiable input; dx: where to write that of x, float32, its last axis contiguous."""
    (batch, _, _, channels), (paths, _, width) = x.shape, weight.shape
    call = _Call(x, weight, bias, activation, order, seq_idx, initial_state, items_per_sequence=1)
    dx = empty_rows(empty, x) if dx is None else dx
    if not call.covers:
        dx.zero_()
    dweight, dbias = empty(batch, paths, channels, width), empty(batch, paths, channels)
    dinitial = None if initial_state is None else empty(*initial_state.shape)
    call.point(grad_final=whole(grad_state), dweight=dweight, dbias=dbias, dinitial=dinitial)
    call.walk("grad_out", rows(grad_out), "batch", "path", "token", prefix="grad")
    call.walk("dx", dx, "batch", "path", "token")
    call.run(backward_conv, scratch_floats=WIDTH * (call.widest * 2 * (width + 1) + 2 * K + 4 * width + 1))
    found = (dx, total(dweight), None if bias is None else total(dbias), dinitial)
    given = (x, weight, bias, initial_state)
    return tuple(None if t is None else g.to(t.dtype) for t, g in zip(given, found, strict=True))


class _Call(KernelCall):
    """What forward and backward tell the kernels alike."""

    def __init__(self, x, weight, bias, activation, order, seq_idx, initial_state, items_per_sequence: int):
        (batch, _, length, channels), (paths, _, width) = x.shape, weight.shape
        steps = length if order is None else order.shape[2]
        self.covers = visits(order, length, paths)[1]
        sizes = (batch, paths, length, steps, channels, width)
        shapes, values, self.widest = _plan(*sizes, x.shape[1], activation == "silu", items_per_sequence)
        super().__init__(RECORD, shapes, values)
        self.point(
            weight=whole(weight), bias=whole(bias), initial=whole(initial_state), seq=whole(seq_idx, torch.int64)
        )
        self.walk("x", rows(x), "batch", "path", "token")
        self.walk("order", whole(order, torch.int32), "batch", "path")


@lru_cache(maxsize=1024)
def _plan(batch, paths, length, steps, channels, width, paths_of_x, silu, items_per_sequence) -> tuple[dict, dict, int]:
    """What follows from the sizes: shapes and values of a record, and the blocks of the widest item."""
    x, state, made = (
        (batch, paths_of_x, length, channels),
        (batch, paths, channels, width - 1),
        (batch, paths, length, channels),
    )
    shapes = {
        "x": x, "weight": (paths, channels, width), "bias": (paths, channels), "order": ((1, batch), paths, steps),
        "seq": (batch, length), "initial": state, "out": made, "final": state, "grad_out": made, "grad_final": state,
        "dx": x, "dweight": (batch, paths, channels, width), "dbias": (batch, paths, channels), "dinitial": state,
    }  # fmt: skip
    blocks = -(-channels // WIDTH)
    sequences = max(1, batch * items_per_sequence)
    splits = min(blocks, max(-(-blocks // WIDEST), -(-ITEMS_WANTED // sequences)))
    values = {
        "batch": batch, "paths": paths, "length": length, "steps": steps, "channels": channels, "W": width, "splits": splits,
        "blocks": blocks, "silu": silu, "items": sequences * splits if batch else 0,
    }  # fmt: skip
    return shapes, values, -(-blocks // max(1, splits))
