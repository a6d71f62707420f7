"""The selective scan on the CPU: memory, records and threads around cpu_kernels.py. Contract: registration.py."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from ..arguments import empty_rows, total
from ..cpu.calls import KernelCall, rows, whole
from ..cpu.lanes import WIDTH
from ..cpu.memory import empty
from ..visits import visits
from .cpu_backward_kernels import backward_scan
from .cpu_kernels import RECORD, K, forward_scan

# Work items wanted per call, so that a few threads share the work evenly; and the most channels of an item: wide enough
# that a row is read in long runs, narrow enough that states and one chunk's tiles stay in a core's second-level cache.
ITEMS_WANTED, CHANNELS_PER_ITEM = 8, 256


def saved_shape(batch, paths, steps, channels, groups, states) -> tuple[int, ...]:
    """Shape of the saved states: one state at the start of every chunk."""
    return (batch, paths, -(-steps // K), groups, -(-channels // groups // WIDTH), states, WIDTH)


def forward(x, delta, A, B, C, D, z, delta_bias, delta_softplus, order, seq_idx, initial_state, merge, save):
    """Outputs, final state and what backward needs."""
    (batch, _, length, channels), (paths, _, states), dtype = x.shape, A.shape, x.dtype
    call = _Call(x, delta, A, B, C, D, z, delta_bias, delta_softplus, order, seq_idx, initial_state, merge)
    covers = call.all_covered or (call.merged and bool(call.covers[0]))
    shape = (batch, length, channels) if call.merged else (batch, paths, length, channels)
    ungated = _filled(shape, covers) if save and z is not None else None
    out = _filled(shape, covers or ungated is not None)
    final = empty(batch, paths, channels, states)
    kept = empty(*(saved_shape(batch, paths, call.steps, channels, call.groups, states) if save else (0,)))
    call.point(out=out, ungated=ungated, final=final, states=kept if save else None)
    call.run(forward_scan, scratch_floats=WIDTH * (call.widest * 2 * states + 3 * K))
    return out.to(dtype), final, kept, empty(0) if ungated is None else ungated


def backward(
    grad_out, grad_state, x, delta, A, B, C, D, z, delta_bias, delta_softplus, order, seq_idx, initial_state, merge,
    chunk_states, ungated, dz=None,
):  # fmt: skip
    """Gradients of every differentiable input; dz: where to write that of z, float32, its last axis contiguous."""
    given = (x, delta, A, B, C, D, z, delta_bias, initial_state)
    (batch, _, _, channels), (paths, _, states) = x.shape, A.shape
    call = _Call(x, delta, A, B, C, D, z, delta_bias, delta_softplus, order, seq_idx, initial_state, merge)
    splits = call.values["splits"]

    def like_rows(t: Tensor) -> Tensor:
        covered = call.all_covered or (t.shape[1] == 1 and bool(call.covers[0]))
        made = empty_rows(empty, t)
        return made if covered else made.zero_()

    dx, ddelta = like_rows(x), like_rows(delta)
    dB, dC = (_filled((splits, *t.shape), by_kernel=False) for t in (B, C))
    dA, dD, dbias = empty(batch, paths, channels, states), empty(batch, paths, channels), empty(batch, paths, channels)
    dz = empty(*z.shape) if z is not None and dz is None else dz
    dinitial = None if initial_state is None else empty(*initial_state.shape)
    call.point(
        grad_final=whole(grad_state), ungated=None if z is None else whole(ungated), states=whole(chunk_states), dA=dA, dD=dD,
        dbias=dbias, dinitial=dinitial,
    )  # fmt: skip
    call.walk("grad_out", rows(grad_out), "batch", *([] if call.merged else ["path"]), "token", prefix="grad")
    call.walk("dz", dz, "batch", "token")
    for name, made in (("dx", dx), ("ddelta", ddelta)):
        call.walk(name, made, "batch", "path")
    for name, made in (("dB", dB), ("dC", dC)):
        call.walk(name, made, "split", "batch", "path")
    call.run(backward_scan, scratch_floats=WIDTH * (call.widest * (3 * states + 2) + 14 * K + 2 * K * states))
    found = (
        dx, ddelta, total(dA), total(dB), total(dC), None if D is None else total(dD), dz,
        None if delta_bias is None else total(dbias), dinitial,
    )  # fmt: skip
    return tuple(None if t is None else g.to(t.dtype) for t, g in zip(given, found, strict=True))


def _filled(shape: tuple[int, ...], by_kernel: bool) -> Tensor:
    """A float32 tensor that the kernel fills, or else begins as zeros."""
    made = empty(*shape)
    return made if by_kernel else made.zero_()


class _Call(KernelCall):
    """What forward and backward tell the kernels alike."""

    def __init__(self, x, delta, A, B, C, D, z, delta_bias, delta_softplus, order, seq_idx, initial_state, merge):
        (batch, _, length, channels), (paths, _, states) = x.shape, A.shape
        self.merged, self.groups = merge != "none", B.shape[3]
        self.steps = length if order is None else order.shape[2]
        self.covers, self.all_covered = visits(order, length, paths)
        sizes = (batch, paths, length, self.steps, channels, self.groups, states)
        given = (x.shape, delta.shape, A.shape, B.shape, C.shape)
        shapes, values, self.widest = _plan(*sizes, *given, delta_softplus, merge)
        super().__init__(RECORD, shapes, values)
        self.point(A=whole(A), D=whole(D), bias=whole(delta_bias), initial=whole(initial_state))
        self.point(seq=whole(seq_idx, torch.int64), covers=self.covers)
        self.walk("x", rows(x), "batch", "path", "token")
        self.walk("delta", rows(delta), "batch", "path", "token")
        self.walk("B", rows(B), "batch", "path", "token", "group")
        self.walk("C", rows(C), "batch", "path", "token", "group")
        self.walk("z", None if z is None else rows(z), "batch", "token")
        self.walk("order", whole(order, torch.int32), "batch", "path")


@lru_cache(maxsize=1024)
def _plan(
    batch, paths, length, steps, channels, groups, states, x, delta, A, B, C, softplus, merge
) -> tuple[dict, dict, int]:
    """What follows from the sizes and shapes: shapes and values of a record, and the blocks of the widest item."""
    blocks, merged = -(-channels // groups // WIDTH), merge != "none"
    splits = min(blocks, max(-(-blocks * WIDTH // CHANNELS_PER_ITEM), -(-ITEMS_WANTED // max(1, batch * groups))))
    state, vector, gate = (batch, paths, channels, states), (paths, channels), (batch, length, channels)
    made = gate if merged else (batch, paths, length, channels)
    shapes = {
        "x": x, "delta": delta, "A": A, "B": B, "C": C, "D": vector, "z": gate, "bias": vector,
        "order": ((1, batch), paths, steps), "seq": (batch, length), "covers": (paths,), "initial": state, "out": made,
        "ungated": made, "final": state, "states": saved_shape(batch, paths, steps, channels, groups, states),
        "grad_out": made, "grad_final": state, "dx": x, "ddelta": delta, "dA": state, "dB": (splits, *B), "dC": (splits, *C),
        "dD": (batch, *vector), "dz": gate, "dbias": (batch, *vector), "dinitial": state,
    }  # fmt: skip
    row = 4 * length * channels
    values = {
        "batch": batch, "paths": paths, "length": length, "steps": steps, "channels": channels, "groups": groups, "N": states,
        "splits": splits, "blocks": blocks, "chunks": -(-steps // K), "softplus": softplus, "merged": merged,
        "items": batch * groups * splits, "scale": 1 / paths if merge == "mean" else 1,
        "out_batch": row * (1 if merged else paths), "out_path": 0 if merged else row,
    }  # fmt: skip
    return shapes, values, -(-blocks // max(1, splits))
