"""State space duality on the CPU: matrix products over chunks (Mamba-2, arXiv 2405.21060, section 6). Contract: registration.py.

With c the running total of log_decay inside a chunk, h the state at its start, a row i of it says

    y_i = exp(c_i) h C_i + sum_{j <= i} M_ij (C_i . B_j) x_j,    M_ij = exp(c_i - c_j) weight_j  (own_weight within a step)

and the state at its end is exp(c_Q) h + sum_j exp(c_Q - c_j) weight_j x_j B_j^T.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..arguments import total
from ..cpu.calls import KernelCall, whole
from ..cpu.calls import rows as as_rows
from ..cpu.lanes import WIDTH
from ..cpu.memory import empty, zeros
from .cpu_backward_kernels import backward_duality
from .cpu_kernels import RECORD, forward_duality
from .pieces import Piece, pieces

SKIPS = True

# Rows of a chunk; work items wanted per call, so that a few threads share the work evenly; and the most heads of an item, whose
# states should stay in a core's second-level cache.
CHUNK_ROWS, ITEMS_WANTED, HEADS_PER_ITEM = 64, 8, 12

# What a restart adds to a running total: nothing survives it, and float64 totals keep their last digits beside it.
FORGET = -1e5

# exp of anything smaller is taken as zero: PyTorch's exp takes many times longer where it underflows.
SMALLEST = -80.0
LOG2_E = 1.4426950408889634


def saved_shape(batch, steps, heads, headdim, groups, states, rank) -> tuple[int, ...]:
    """Shape of the saved states: one state at the start of every chunk."""
    return (batch, -(-steps // _chunk(rank)), heads, states, -(-headdim // WIDTH) * WIDTH)


# Past the dispatcher autocast would reach these products: sums over a chunk are float32.
IN_FLOAT32 = torch.autocast("cpu", enabled=False)


@IN_FLOAT32
def forward(x, log_decay, weight, own_weight, B, C, restart, initial_state, rank, save, skip=None):
    """Outputs, final state and, where asked for, the states at chunk starts."""
    dtype, x, B, C = x.dtype, *(as_rows(t) for t in (x, B, C))
    skip = None if skip is None else skip.float().expand(x.shape[0], -1).contiguous()
    given = (x, log_decay, weight, own_weight, B, C, skip)
    y, state, kept = _forward(*given, restart, initial_state, rank, save)
    for piece in pieces(restart, rank, *given, initial_state):
        before = initial_state[piece.at] if piece.carries and initial_state is not None else None
        y[piece.at, piece.rows], state[piece.at], _ = _forward(*_cut(given, piece), None, before, rank, False)
    return y.to(dtype), state, kept


@IN_FLOAT32
def backward(
    grad_y, grad_state, x, log_decay, weight, own_weight, B, C, restart, initial_state, rank, chunk_states, skip=None
):
    """Gradients of every differentiable input."""
    types = [None if t is None else t.dtype for t in (x, log_decay, weight, own_weight, B, C, initial_state, skip)]
    x, B, C = (as_rows(t) for t in (x, B, C))
    grad_y = zeros(*x.shape) if grad_y is None else as_rows(grad_y)
    told = None if skip is None else skip.float().expand(x.shape[0], -1).contiguous()
    given = (x, log_decay, weight, own_weight, B, C, told)
    found, dstate = _backward(grad_y, grad_state, *given, restart, initial_state, rank, chunk_states)
    for piece in pieces(restart, rank, *given, initial_state, grad_y, grad_state):
        cut, before = (
            _cut(given, piece),
            initial_state[piece.at] if piece.carries and initial_state is not None else None,
        )
        _, _, kept = _forward(*cut, None, before, rank, True)
        dy, dh = grad_y[piece.at, piece.rows], grad_state[piece.at] if piece.last and grad_state is not None else None
        own, before = _backward(dy, dh, *cut, None, before, rank, kept)
        for all_of_it, part in zip(_cut(found, piece), own, strict=True):
            all_of_it.copy_(part)
        if piece.steps.start == 0:
            dstate[piece.at] = before if piece.carries else 0
    dx, dlog_decay, dweight, down, dB, dC, dskip = found
    found = (
        dx,
        dlog_decay,
        dweight,
        None if own_weight is None else down,
        dB,
        dC,
        None if initial_state is None else dstate,
        None if skip is None else dskip.sum_to_size(skip.shape),
    )
    return tuple(None if kind is None else g.to(kind) for kind, g in zip(types, found, strict=True))


def _forward(x, log_decay, weight, own_weight, B, C, skip, restart, initial_state, rank, save):
    (batch, _, heads, width), states, steps = x.shape, B.shape[3], log_decay.shape[1]
    y, state = empty(*x.shape), empty(batch, heads, width, states)
    kept = empty(*(saved_shape(batch, steps, heads, width, B.shape[2], states, rank) if save else (0,)))
    if steps == 1 and not save:
        state.copy_(initial_state) if initial_state is not None else state.zero_()
        _one_step(x, log_decay, weight, own_weight, B, C, restart, state, y)
        if skip is not None:
            y.addcmul_(x, skip[:, None, :, None])
        return y, state, kept
    call = _Call(x, B, C, skip, _Decays.of(log_decay, weight, own_weight, restart, rank), initial_state, rank)
    call.point(y=y, final=state, kept=kept if save else None)
    call.run(forward_duality, call.scratch_floats)
    return y, state, kept


def _backward(
    grad_y, grad_state, x, log_decay, weight, own_weight, B, C, skip, restart, initial_state, rank, chunk_states
):
    call = _Call(x, B, C, skip, _Decays.of(log_decay, weight, own_weight, restart, rank), initial_state, rank)
    dx, dlog_decay, dweight, down = (empty(*t.shape) for t in (x, log_decay, weight, weight))
    dskip, dinitial = zeros(x.shape[0], x.shape[2]), empty(x.shape[0], *x.shape[2:], B.shape[3])
    dB, dC = (empty(*call.shapes[name]) for name in ("dB", "dC"))
    call.walk("dy", grad_y, "batch", "row", "head")
    call.point(
        dfinal=whole(grad_state), kept=whole(chunk_states), dx=dx, dlog_decay=dlog_decay, dweight=dweight,
        down=None if own_weight is None else down, dskip=dskip, dinitial=dinitial, dB=dB, dC=dC,
    )  # fmt: skip
    call.run(backward_duality, call.scratch_floats)
    return (dx, dlog_decay, dweight, down, total(dB), total(dC), dskip), dinitial


def _cut(given: Sequence[Tensor | None], piece: Piece) -> list[Tensor | None]:
    """A piece of x, log_decay, weight, own_weight, B, C and skip, or of their gradients: views."""
    sides = (piece.rows, piece.steps, piece.steps, piece.steps, piece.rows, piece.rows, slice(None))
    return [None if t is None else t[piece.at, side] for t, side in zip(given, sides, strict=True)]


class _Decays(NamedTuple):
    """What the decays of a call come to, by chunk, for every row (the rows of a step alike): (batch, chunks, heads, rows).

    high, low: running totals in powers of two, as the sum of two floats; start: what of the state at the chunk's start is left;
    later: what of a row is left at its end; end: (batch, chunks, heads), what is left of the start; weight, own.
    """

    high: Tensor
    low: Tensor
    start: Tensor
    later: Tensor
    end: Tensor
    weight: Tensor
    own: Tensor | None

    @classmethod
    def of(cls, log_decay, weight, own_weight, restart, rank) -> _Decays:
        size = min(_chunk(rank), max(1, log_decay.shape[1]))

        def chunked(t: Tensor) -> Tensor:
            t = torch.nn.functional.pad(t, (0, 0, 0, -t.shape[1] % size))
            return t.unflatten(1, (-1, size)).transpose(2, 3)

        def by_row(t: Tensor) -> Tensor:
            return (t if rank == 1 else t.repeat_interleave(rank, dim=3)).contiguous()

        log_decay = log_decay.double()
        if restart is not None:
            log_decay = log_decay.masked_fill(restart[..., None], FORGET)
        running = chunked(log_decay).cumsum(3)
        end = running[..., -1:]
        start, later = (by_row(_exp(t.float())) for t in (running, end - running))
        weight, own = (None if t is None else by_row(chunked(t.float())) for t in (weight, own_weight))
        running = by_row(running) * LOG2_E
        high = running.float()
        low = running.sub_(high).float()
        return cls(high, low, start, later, _exp(end.squeeze(3).float()), weight, own)


class _Call(KernelCall):
    """What forward and backward tell the kernels alike."""

    def __init__(self, x, B, C, skip, decays: _Decays, initial_state, rank: int):
        (batch, rows, heads, width), (groups, states) = x.shape, B.shape[2:]
        _, chunks, _, of_chunk = decays.high.shape
        shapes, values, self.scratch_floats = _plan(batch, rows, heads, width, groups, states, chunks, of_chunk, rank)
        super().__init__(RECORD, shapes, values)
        for name, tensor in (("x", x), ("B", B), ("C", C)):
            self.walk(name, tensor, "batch", "row", "head" if name == "x" else "group")
        self.point(skip=skip, places=_places(of_chunk), initial=whole(initial_state), **decays._asdict())


@functools.lru_cache(maxsize=1024)
def _plan(batch, rows, heads, width, groups, states, chunks, of_chunk, rank) -> tuple[dict, dict, int]:
    """What follows from the sizes: shapes and values of a record, and floats of scratch."""
    each = heads // groups
    splits = min(each, max(-(-each // HEADS_PER_ITEM), -(-ITEMS_WANTED // max(1, batch * groups))))
    line, across, deep = (-(-size // WIDTH) * WIDTH for size in (width, of_chunk, states))
    by_row, by_head, steps = (batch, chunks, heads, of_chunk), (batch, heads), (batch, rows // rank, heads)
    tokens, keys, state = (batch, rows, heads, width), (batch, rows, groups, states), (batch, heads, width, states)
    shapes = (
        dict.fromkeys(("x", "y", "dy", "dx"), tokens)
        | dict.fromkeys(("B", "C"), keys)
        | dict.fromkeys(("high", "low", "start", "later", "weight", "own"), by_row)
        | dict.fromkeys(("initial", "final", "dfinal", "dinitial"), state)
        | dict.fromkeys(("skip", "dskip"), by_head)
        | dict.fromkeys(("dlog_decay", "dweight", "down"), steps)
        | dict.fromkeys(("dB", "dC"), (splits, *keys))
        | {"end": (batch, chunks, heads), "places": (of_chunk,), "kept": (batch, chunks, heads, states, line)}
    )
    values = {
        "batch": batch, "rows": rows, "heads": heads, "P": width, "groups": groups, "S": states, "chunks": chunks, "N": of_chunk,
        "rank": rank, "steps": rows // rank, "splits": splits, "line": 4 * line, "across": 4 * across, "deep": 4 * deep,
        "items": batch * groups * splits,
    }  # fmt: skip
    # States of an item's heads; B, C and what they have in common; its gradients and theirs; what a head has in a chunk.
    squares, of_keys = across * across, across * deep
    scratch = -(-each // max(1, splits)) * states * line + 3 * of_keys + squares + squares + 2 * of_keys
    return shapes, values, scratch + 5 * line * across + 2 * max(squares, of_keys) + 4 * across


def _one_step(x, log_decay, weight, own_weight, B, C, restart, state, y) -> None:
    """A single step: the state (batch, H, P, S) is updated and y (batch, R, H, P) written."""
    (batch, rank, heads, width), (groups, states) = x.shape, B.shape[2:]
    decay = torch.exp(log_decay[:, 0].float())
    if restart is not None:
        decay = decay.masked_fill(restart, 0)
    own = weight if own_weight is None else own_weight
    B, C, h = _by(B), _by(C), state.view(batch * groups, heads // groups * width, states)
    state.mul_(decay[..., None, None])
    inside = torch.bmm(C, B.transpose(1, 2)).view(batch, groups, 1, rank, rank)
    inside = (inside * own[:, 0].float().view(batch, groups, heads // groups, 1, 1)).flatten(0, 2)
    inside = torch.bmm(inside, _by(x)).view(batch, heads, rank, width).transpose(1, 2)
    told = torch.bmm(C, h.transpose(1, 2)).view(batch, groups, rank, heads // groups, width)
    torch.add(told.transpose(1, 2).reshape(y.shape), inside, out=y)
    added = (x * weight[:, 0, :, None].float()[:, None]).view(batch, rank, groups, heads // groups * width)
    h.baddbmm_(_by(added).transpose(1, 2), B)


def _chunk(rank: int) -> int:
    return max(1, CHUNK_ROWS // rank)


def _by(t: Tensor) -> Tensor:
    """(k, n, G, columns) as (kG, n, columns), a view for one sequence or one group."""
    return t.transpose(1, 2).flatten(0, 1)


def _exp(t: Tensor) -> Tensor:
    """exp of numbers at most 0, in place; exactly 0 below SMALLEST."""
    t.clamp_(min=SMALLEST, max=0).exp_()
    return torch.nn.functional.threshold_(t, 2e-35, 0.0)


@functools.cache
def _places(rows: int) -> Tensor:
    return torch.arange(rows, dtype=torch.float32, device="cpu")
