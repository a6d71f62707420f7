"""State space duality on the CPU: matrix products over chunks (Mamba-2, arXiv 2405.21060, section 6). Contract: registration.py.

With c the running total of log_decay inside a chunk, h the state at its start, a row i of it says

    y_i = exp(c_i) h C_i + sum_{j <= i} M_ij (C_i . B_j) x_j,    M_ij = exp(c_i - c_j) weight_j  (own_weight within a step)

and the state at its end is exp(c_Q) h + sum_j exp(c_Q - c_j) weight_j x_j B_j^T. Chunks follow one another while their rows
are in the cache. Legend: k sequences, n rows (Q steps of R) of a chunk, H heads of P, G groups of E heads, S states.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..cpu.calls import address, record, run
from ..cpu.calls import rows as as_rows
from ..cpu.memory import empty, zeros
from ..cpu.team import Kernel
from .cpu_kernels import score_gradients, scores
from .pieces import Piece, pieces

SKIPS = True

# Rows of a chunk, and numbers in the score matrices worked on together (they should stay in a core's second-level cache).
CHUNK_ROWS, TOGETHER = 64, 2**18

# What a restart adds to a running total: nothing survives it, and float64 totals keep their last digits beside it.
FORGET = -1e5

# exp of anything smaller is taken as zero: PyTorch's exp takes many times longer where it underflows.
SMALLEST = -80.0
LOG2_E = 1.4426950408889634


def saved_shape(batch, steps, heads, headdim, groups, states, rank) -> tuple[int, ...]:
    """Shape of the saved states: one state at the start of every chunk."""
    return (batch, -(-steps // _chunk(rank)), heads, headdim, states)


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
        for whole, part in zip(_cut(found, piece), own, strict=True):
            whole.copy_(part)
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
    batch, _, heads, width = x.shape
    groups, states, steps = *B.shape[2:], log_decay.shape[1]
    y, state = empty(*x.shape), zeros(batch, heads, width, states)
    if initial_state is not None:
        state.copy_(initial_state)
    kept = empty(*(saved_shape(batch, steps, heads, width, groups, states, rank) if save else (0,)))
    if steps == 1:
        if save:
            kept[:, 0] = state
        _one_step(x, log_decay, weight, own_weight, B, C, restart, state, y)
        if skip is not None:
            y.addcmul_(x, skip[:, None, :, None])
        return y, state, kept
    decays = _Decays.of(log_decay, weight, own_weight, skip, restart, rank)
    for part in _parts(x, B, C, decays, rank):
        h = state[part.sequences]
        if save:
            kept[part.sequences, part.number] = h
        part.outputs(None if part.number == 0 and initial_state is None else h, y[part.sequences, part.rows])
        part.advance(h)
    return y, state, kept


def _backward(
    grad_y, grad_state, x, log_decay, weight, own_weight, B, C, skip, restart, initial_state, rank, chunk_states
):
    dstate = zeros(x.shape[0], *x.shape[2:], B.shape[3])
    if grad_state is not None:
        dstate.copy_(grad_state)
    decays = _Decays.of(log_decay, weight, own_weight, skip, restart, rank)
    found = _Gradients(*(empty(*t.shape) for t in (x, log_decay, weight, weight, B, C)), zeros(x.shape[0], x.shape[2]))
    last = decays.end.shape[1] - 1
    for part in _parts(x, B, C, decays, rank, backwards=True):
        h = (
            None
            if part.number == 0 and initial_state is None
            else chunk_states[part.sequences, part.number].contiguous()
        )
        dh = dstate[part.sequences]
        dy = grad_y[part.sequences, part.rows]
        into = found.of(part)
        part.intra_gradients(dy, into)
        if grad_state is not None or part.number < last:
            part.end_gradients(h, dh, into)
        part.start_gradients(h, dy, dh, into)
    return found, dstate


def _cut(given: Sequence[Tensor | None], piece: Piece) -> list[Tensor | None]:
    """A piece of x, log_decay, weight, own_weight, B, C and skip, or of their gradients: views."""
    sides = (piece.rows, piece.steps, piece.steps, piece.steps, piece.rows, piece.rows, slice(None))
    return [None if t is None else t[piece.at, side] for t, side in zip(given, sides, strict=True)]


class _Decays(NamedTuple):
    """What the decays of a call come to, by chunk, for every row (the rows of a step alike).

    high, low: (batch, chunks, heads, n), running totals in powers of two, as the sum of two floats; start: (batch, chunks, n,
    heads), what of the state at the chunk's start is left; later: what of a row is left at its end; end: (batch, chunks, heads),
    what is left of the start. weight, own: (batch, chunks, heads, n). skip: (batch, heads).
    """

    high: Tensor
    low: Tensor
    start: Tensor
    later: Tensor
    end: Tensor
    weight: Tensor
    own: Tensor | None
    skip: Tensor | None

    @classmethod
    def of(cls, log_decay, weight, own_weight, skip, restart, rank) -> _Decays:
        def chunked(t: Tensor) -> Tensor:
            t = torch.nn.functional.pad(t, (0, 0, 0, -t.shape[1] % _chunk(rank)))
            return t.unflatten(1, (-1, _chunk(rank))).transpose(2, 3)

        def by_row(t: Tensor) -> Tensor:
            return t if rank == 1 else t.repeat_interleave(rank, dim=3)

        log_decay = log_decay.double()
        if restart is not None:
            log_decay = log_decay.masked_fill(restart[..., None], FORGET)
        total = chunked(log_decay).cumsum(3)
        end = total[..., -1:]
        start, later = (by_row(_exp(t.float())).transpose(2, 3) for t in (total, end - total))
        weight, own = (None if t is None else by_row(chunked(t.float())).contiguous() for t in (weight, own_weight))
        total = by_row(total).contiguous() * LOG2_E
        high = total.float()
        low = total.sub_(high).float()
        return cls(high, low, start.contiguous(), later.contiguous(), _exp(end.squeeze(3).float()), weight, own, skip)


class _Gradients(NamedTuple):
    """Gradients of a call, or of one part of it: (k, rows or steps, ...)."""

    x: Tensor
    log_decay: Tensor
    weight: Tensor
    own: Tensor
    B: Tensor
    C: Tensor
    skip: Tensor

    def of(self, part: _Part) -> _Gradients:
        rows, steps = part.rows, slice(part.rows.start // part.rank, part.rows.stop // part.rank)
        sides = (rows, steps, steps, steps, rows, rows, slice(None))
        return _Gradients(*(t[part.sequences, side] for t, side in zip(self, sides, strict=True)))


class _Part:
    """One chunk of some sequences.

    Attributes:
        x: (k, n, H, P); B, C: (kG, n, S); the others as in _Decays, this chunk's.
    """

    def __init__(self, sequences: slice, number: int, x: Tensor, B: Tensor, C: Tensor, decays: _Decays, rank: int):
        begin = number * _chunk(rank) * rank
        self.sequences, self.number, self.rank = sequences, number, rank
        self.rows = slice(begin, min(begin + _chunk(rank) * rank, x.shape[1]))
        self.x = x[sequences, self.rows]
        self.k, self.n, self.H, self.P = self.x.shape
        self.G, self.S = B.shape[2:]
        self.E, self.Q = self.H // self.G, self.n // rank
        self.B, self.C = (_by(t[sequences, self.rows]) for t in (B, C))
        totals = (decays.high, decays.low, decays.weight)
        self.high, self.low, self.weight = (t[sequences, number, :, : self.n] for t in totals)
        self.own = None if decays.own is None else decays.own[sequences, number, :, : self.n]
        self.skip = None if decays.skip is None else decays.skip[sequences]
        self.start, self.later = (t[sequences, number, : self.n, :, None] for t in (decays.start, decays.later))
        self.end = decays.end[sequences, number, :, None, None]

    def outputs(self, h: Tensor | None, y: Tensor) -> None:
        """Write y (k, n, H, P), with the state h (k, H, P, S) at the chunk's start, None for zero."""
        score = empty(self.k * self.H, self.n, self.n)
        self._run(scores, alike=self._alike(), scores=score)
        inside = torch.bmm(score, _by(self.x)).view(self.k, self.H, self.n, self.P).transpose(1, 2)
        if h is None:
            y.copy_(inside)
        else:
            torch.mul(self._read(self.C, h), self.start, out=y).add_(inside)

    def advance(self, h: Tensor) -> None:
        """Turn the state (k, H, P, S) at the chunk's start into the one at its end."""
        left = self.x * (self.later * self._weight())
        h.mul_(self.end)
        self._grouped(h).baddbmm_(self._columns(left).transpose(1, 2), self.B)

    def intra_gradients(self, dy: Tensor, into: _Gradients) -> None:
        """Gradients through what the chunk's rows say to one another; written, not added."""
        k, n, H = self.k, self.n, self.H
        dy, alike = _by(dy), self._alike()
        dscore, score = torch.bmm(dy, _by(self.x).transpose(1, 2)), empty(k * H, n, n)
        heard, passed, owned, skipped = zeros(k, H, n), empty(k, H, self.Q), empty(k, H, self.Q), empty(k, H)
        results = {"heard": heard, "passed": passed, "owned": owned, "skipped": skipped}
        self._run(score_gradients, alike=alike, scores=score, dscores=dscore, **results)
        dalike = dscore if self.E == 1 else dscore.view(k, self.G, self.E, n, n).sum(2).flatten(0, 1)
        into.x.copy_(torch.bmm(score.transpose(1, 2), dy).view(k, H, n, self.P).transpose(1, 2))
        into.C.copy_(self._rows(torch.bmm(dalike, self.B)))
        into.B.copy_(self._rows(torch.bmm(dalike.transpose(1, 2), self.C)))
        into.weight.copy_(self._by_step(heard.transpose(1, 2)))
        into.log_decay.copy_(passed.transpose(1, 2))
        if self.own is not None:
            into.own.copy_(owned.transpose(1, 2))
        if self.skip is not None:
            into.skip.add_(skipped)

    def end_gradients(self, h: Tensor | None, dh: Tensor, into: _Gradients) -> None:
        """Add the gradients through the state at the chunk's end, dh (k, H, P, S)."""
        told, left = self._read(self.B, dh), self.later * self._weight()
        into.x.addcmul_(told, left)
        self._add_rows(into.B, torch.bmm(self._columns(self.x * left), self._grouped(dh)))
        share = (told * self.x).sum(3)
        into.weight.add_(self._by_step(share * self.later[..., 0]))
        before, _ = _order(self.n, self.rank)
        into.log_decay.add_(torch.matmul(before.T, share * left[..., 0]))
        if h is not None:
            into.log_decay.add_(((dh * h).sum((2, 3)) * self.end[..., 0, 0])[:, None])

    def start_gradients(self, h: Tensor | None, dy: Tensor, dh: Tensor, into: _Gradients) -> None:
        """Add the gradients through the state h at the chunk's start, and turn dh into that state's gradient."""
        dy = dy * self.start
        dh.mul_(self.end)
        self._grouped(dh).baddbmm_(self._columns(dy).transpose(1, 2), self.C)
        if h is None:
            return
        self._add_rows(into.C, torch.bmm(self._columns(dy), self._grouped(h)))
        _, since = _order(self.n, self.rank)
        into.log_decay.add_(torch.matmul(since.T, dy.mul_(self._read(self.C, h)).sum(3)))

    def _run(self, kernel: Kernel, **results: Tensor) -> None:
        """A kernel of cpu_kernels.py over this chunk."""
        k, H, n = self.k, self.H, self.n
        sizes = {"alike": (k * self.G, n, n), "heard": (k, H, n), "skipped": (k, H)}
        sizes |= dict.fromkeys(("passed", "owned"), (k, H, self.Q))
        own = self.weight if self.own is None else self.own
        told = dict.fromkeys(("dscores", "heard", "passed", "owned", "skipped"), 0) | {
            name: address(name, each, sizes.get(name, (k * H, n, n))) for name, each in results.items()
        }
        for name in ("high", "low", "weight"):
            told[name] = address(name, getattr(self, name), (k, H, n), walked=2)
        told["own"] = address("own", self.own, (k, H, n), walked=2)
        told["skip"] = address("skip", self.skip, (k, H))
        sequence, head, *_ = (4 * stride for stride in self.high.stride())
        own_sequence, own_head, *_ = (4 * stride for stride in own.stride())
        run(kernel, k * H, record(
            kernel, **told, places=address("places", _places(n), (n,)), sequence=sequence, head=head, own_sequence=own_sequence,
            own_head=own_head, heads=H, groups=self.G, rows=n, rank=self.rank, items=k * H,
        ))  # fmt: skip

    def _alike(self) -> Tensor:
        """C_i . B_j, (kG, n, n)."""
        return torch.bmm(self.C, self.B.transpose(1, 2))

    def _weight(self) -> Tensor:
        return self.weight.transpose(1, 2)[..., None]

    def _read(self, keys: Tensor, h: Tensor) -> Tensor:
        """The product of keys (kG, n, S) and a state: (k, n, H, P)."""
        told = torch.bmm(keys, self._grouped(h).transpose(1, 2)).view(self.k, self.G, self.n, self.E, self.P)
        return told.transpose(1, 2).reshape(self.k, self.n, self.H, self.P)

    def _grouped(self, h: Tensor) -> Tensor:
        return h.view(self.k * self.G, self.E * self.P, self.S)

    def _columns(self, t: Tensor) -> Tensor:
        """(k, n, H, P) as (kG, n, EP)."""
        return _by(t.view(self.k, self.n, self.G, self.E * self.P))

    def _rows(self, t: Tensor) -> Tensor:
        """(kG, n, S) as (k, n, G, S)."""
        return t.view(self.k, self.G, self.n, self.S).transpose(1, 2)

    def _add_rows(self, total: Tensor, t: Tensor) -> None:
        total.add_(self._rows(t))

    def _by_step(self, t: Tensor) -> Tensor:
        """(k, n, H) summed over the rows of each step."""
        return t if self.rank == 1 else t.unflatten(1, (self.Q, self.rank)).sum(2)


def _parts(x, B, C, decays: _Decays, rank: int, backwards: bool = False) -> Iterator[_Part]:
    """The chunks of a few sequences at a time, one after the other in time (or against it)."""
    batch, chunks, heads = decays.end.shape
    rows = min(_chunk(rank) * rank, max(1, x.shape[1]))
    together = max(1, TOGETHER // (heads * rows * rows))
    for begin in range(0, batch, together):
        sequences = slice(begin, min(begin + together, batch))
        for number in reversed(range(chunks)) if backwards else range(chunks):
            yield _Part(sequences, number, x, B, C, decays, rank)


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


@functools.cache
def _order(rows: int, rank: int) -> tuple[Tensor, Tensor]:
    """Whether a row stands before a step, or in it or after it: two (rows, steps) of ones and zeros."""
    step = torch.arange(rows, device="cpu") // rank
    before = step[:, None] < torch.arange(rows // rank, device="cpu")
    return before.float(), (~before).float()
