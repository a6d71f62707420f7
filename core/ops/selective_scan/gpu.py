"""The selective scan on a GPU: Triton kernels, for bfloat16, float16 and float32, with states and sums in float32.

Two forms. A program walks a whole path for 32 channels where batch × paths × channel blocks fill the card. Where they do not,
the length is split as well: every segment is scanned from zero, a short chain turns what the segments hand on into what
enters each of them, and the first form then runs on all segments at once. The backward goes the same way from the end.

Nothing is added atomically: what several programs contribute to one number is written apart and summed in a fixed order, so
results repeat bit for bit. Of several paths that are merged, each is written apart too (float32): a program that walked
them one after the other would save that memory and leave most of the card idle.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import cache, lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from ..blocks import cdiv, next_power_of_2
from .gpu_backward_kernel import scan_backward_kernel
from .gpu_kernels import chain_kernel, gate_backward_kernel, merge_kernel, scan_kernel, segment_kernel

CHUNK = 32  # steps between two saved states: a saved state costs states / CHUNK numbers a token and channel
WIDE = 2**31  # numbers from a sample's first to its last from which on 32 bits cannot say where a row is
# A thread; left to itself the assembler aims lower and moves some to memory. The fewest that it needs where the order of the tokens
# or the bounds of sequences need not be looked up as well (on sm_90 one of the two fits in).
REGISTERS_LEAST, REGISTERS, REGISTERS_BACKWARD = 128, 168, 255
SCHEDULERS, REGISTERS_EACH = 4, 16_384  # of a multiprocessor, of a scheduler
SPLIT, LAUNCHES, WAVES = 1.45, 4, 8  # see segments_of; chunks that launching more kernels takes as long as; waves tried
PROCESSORS_WITHOUT_GPU = 1  # the interpreter runs programs one after the other


class Tile(NamedTuple):
    """A block of channels (rows × width) and padded states; how many warps run it, and how many steps at a time: `replay`
    in the backward, which holds their states in registers, `unroll` elsewhere.
    """

    rows: int
    states: int
    width: int
    unroll: int
    replay: int
    warps: int

    @property
    def channels(self) -> int:
        return self.rows * self.width

    @property
    def numel(self) -> int:
        return self.rows * self.states * self.width


class Plan(NamedTuple):
    """Sizes of one call and how the work is divided: `blocks` of channels in all groups, `segments` of `segment` steps."""

    batch: int
    paths: int
    length: int
    steps: int
    channels: int
    group: int
    groups: int
    states: int
    tile: Tile
    blocks: int
    segments: int
    segment: int

    @property
    def programs(self) -> int:
        return self.batch * self.paths * self.segments * self.blocks

    @property
    def sizes(self) -> tuple[int, ...]:
        """P, L, S, D, DG, N, NB, K, SEGMENT of the kernels."""
        return (
            self.paths, self.length, self.steps, self.channels, self.group, self.states, self.blocks, self.segments,
            self.segment,
        )  # fmt: skip

    @property
    def constants(self) -> dict[str, int]:
        tile = self.tile
        return {"BR": tile.rows, "BN": tile.states, "BW": tile.width, "num_warps": tile.warps}


@cache
def tile_of(states: int, capability: int = 9) -> Tile:
    """The launch configuration for a number of states: at most 16 numbers of the state a thread.

    Args:
        capability: the card's, its first digit: before 9, two steps at a time in the backward do not fit into registers.
    """
    padded = max(4, next_power_of_2(states))
    if padded <= 16:
        return Tile(rows=4, states=padded, width=8, unroll=4, replay=2 if capability >= 9 else 1, warps=1)
    if padded == 32:
        return Tile(rows=2, states=padded, width=8, unroll=2, replay=1, warps=1)
    if padded <= 128:
        return Tile(rows=4, states=padded, width=8, unroll=2, replay=1, warps=padded // 16)
    return Tile(rows=max(1, 512 // padded), states=padded, width=8, unroll=2, replay=1, warps=8)


def registers_of(states: int, looked_up: int, capability: int) -> int:
    """Of a thread of the forward scan, so that none is moved to memory.

    Args:
        looked_up: at each step, of the token's place (order) and its sequence (seq_idx).
        capability: the card's, its first digit.
    """
    return REGISTERS_LEAST if states <= 16 and looked_up <= (1 if capability >= 9 else 0) else REGISTERS


@lru_cache(4096)
def segments_of(programs: int, warps: int, steps: int, processors: int, registers: int) -> int:
    """How many segments the length is split into: as many as make the programs, wave after wave, end first.

    A wave is what the card's registers hold at once, 12 or 16 warps a processor forward and 8 backward; each takes as long
    as its segment has chunks, and half a chunk more. Splitting does the work of SPLIT segments for one, in more kernels.
    This says within a fifth what 384 programs of 2,048 steps took on an H100, 12 warps at once: whole 2.2 ms, in two
    segments 1.5, three 1.1, four 0.8, five 1.2 (these are two waves), eight 0.8; backward 3.6, 2.6, 3.0, 2.4, 2.2 and 2.0.

    Args:
        programs: batch × paths × channel blocks.
        warps: of each program.
        steps: of a path.
        processors: multiprocessors of the card.
        registers: of a thread.
    """
    at_once = SCHEDULERS * (REGISTERS_EACH // (32 * registers))
    chunks, wave = cdiv(steps, CHUNK), max(1, processors * at_once // warps)
    if not chunks or not programs:
        return 1

    def cost(segments: int) -> float:
        whole = cdiv(programs * segments, wave) * (cdiv(chunks, segments) + 0.5)
        return whole if segments == 1 else SPLIT * whole + LAUNCHES

    tried = {1, *(max(1, min(chunks, waves * wave // programs)) for waves in range(1, WAVES + 1))}
    least = min(map(cost, tried))
    fewest = min(count for count in tried if cost(count) <= 1.03 * least)
    return cdiv(chunks, cdiv(chunks, fewest))


def saved_shape(batch: int, paths: int, steps: int, channels: int, groups: int, states: int) -> tuple[int, ...]:
    """Shape of the states saved at chunk begins, by tiles: (batch, paths, chunks, channel blocks, numbers in a tile)."""
    tile = tile_of(states)
    return batch, paths, cdiv(steps, CHUNK), groups * cdiv(channels // groups, tile.channels), tile.numel


def forward(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
    delta_bias: Tensor | None, delta_softplus: bool, order: Tensor | None, seq_idx: Tensor | None,
    initial_state: Tensor | None, merge: str, save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """The scan and what its backward needs; shapes: registration.py.

    Returns:
        out; final state (batch, paths, channels, states); chunk states (`saved_shape`) and output before the gate, both
        empty where not asked for.
    """
    looked_up = (order is not None) + (seq_idx is not None)
    registers = registers_of(A.shape[-1], looked_up, _card(x.device)[1])
    plan = _plan(x, A, B, order, registers)
    paths, merged = plan.paths, merge != "none" and plan.paths > 1
    inputs = _inputs(plan, x, delta, A, B, C, D, z, delta_bias, order, seq_idx, initial_state)
    shape = (plan.batch, paths, plan.length, plan.channels)
    out = x.new_empty(shape if merge == "none" else (plan.batch, *shape[2:]))
    ungated = x.new_empty(out.shape if save and z is not None else (0,), dtype=torch.float32)
    saved = saved_shape(*shape[:2], plan.steps, plan.channels, plan.groups, plan.states) if save else (0,)
    chunk_states = x.new_empty(saved, dtype=torch.float32)
    final_state = x.new_empty((*shape[:2], plan.channels, plan.states), dtype=torch.float32)
    parts = x.new_empty(shape, dtype=torch.float32) if merged else out
    if order is not None:  # the order may leave tokens out
        parts.zero_()
        ungated.zero_()
    if out.numel() == 0 or plan.programs == 0:
        return out.zero_(), _edge_or_zero(final_state, initial_state), chunk_states, ungated.zero_()

    with _on(x):
        carry = _carry(plan, inputs, delta_softplus, reverse=False)
        kept = ungated if ungated.numel() else None
        scan_kernel[(plan.programs,)](
            inputs.x, inputs.delta, inputs.A, inputs.B, inputs.C, inputs.D, None if merged else inputs.z, inputs.bias,
            inputs.order, inputs.seq_idx, carry, inputs.initial,
            parts, None if merged else kept, chunk_states if save else None, final_state,
            *inputs.strides, *plan.sizes, SOFTPLUS=delta_softplus, WIDE=inputs.wide, CHUNK=CHUNK, UNROLL=plan.tile.unroll,
            maxnreg=registers, **plan.constants,
        )  # fmt: skip
        if merged:
            grid, rows, blocks = _rowwise(plan)
            scale = 1.0 / paths if merge == "mean" else 1.0
            merge_kernel[grid](
                parts, inputs.z, out, kept, inputs.strides[4], scale, paths, plan.length, plan.channels, rows, **blocks
            )
    return out, final_state, chunk_states, ungated


def backward(
    grad_out: Tensor, grad_state: Tensor | None,
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
    delta_bias: Tensor | None, delta_softplus: bool, order: Tensor | None, seq_idx: Tensor | None,
    initial_state: Tensor | None, merge: str, chunk_states: Tensor, ungated: Tensor,
) -> tuple[Tensor | None, ...]:  # fmt: skip
    """Gradients of x, delta, A, B, C, D, z, delta_bias, initial_state; None where the argument is None."""
    plan = _plan(x, A, B, order, REGISTERS_BACKWARD)
    if plan.programs * plan.steps == 0:
        given = (x, delta, A, B, C, D, z, delta_bias, initial_state)
        found = [None if t is None else t.new_zeros(t.shape) for t in given]
        if initial_state is not None and grad_state is not None:
            found[-1].copy_(grad_state)
        return tuple(found)
    inputs = _inputs(plan, x, delta, A, B, C, D, z, delta_bias, order, seq_idx, initial_state)
    grad = _rows(grad_out if merge == "none" else grad_out[:, None])
    inputs = inputs._replace(wide=inputs.wide or plan.length * grad.stride(2) >= WIDE)
    stride = (grad.stride(0), grad.stride(1) if merge == "none" else 0, grad.stride(2))
    grad_state = None if grad_state is None else grad_state.float().contiguous()
    scale, tile = 1.0 / plan.paths if merge == "mean" else 1.0, plan.tile
    dx, ddelta, da, db, dc, dd, dbias, dinitial = buffers = _gradient_buffers(
        plan, x, delta, D, delta_bias, order, initial_state
    )
    dz = None if z is None else z.new_empty(z.shape)
    with _on(x):
        carry = _carry(plan, inputs, delta_softplus, True, grad, grad_state, stride, scale)
        scratch = x.new_empty((plan.programs, CHUNK // tile.replay, tile.numel), dtype=torch.float32)
        scan_backward_kernel[(plan.programs,)](
            inputs.x, inputs.delta, inputs.A, inputs.B, inputs.C, inputs.D, inputs.z, inputs.bias, inputs.order,
            inputs.seq_idx, carry, grad_state, grad, chunk_states, scratch, *buffers,
            *inputs.strides, stride, scale, plan.batch, *plan.sizes,
            SOFTPLUS=delta_softplus, WIDE=inputs.wide, CHUNK=CHUNK, UNROLL=tile.replay,
            maxnreg=REGISTERS_BACKWARD, **plan.constants,
        )  # fmt: skip
        if z is not None:
            grid, rows, blocks = _rowwise(plan)
            gate_backward_kernel[grid](
                grad, ungated, inputs.z, dz, inputs.strides[4], stride, grad.shape[1], plan.length, plan.channels, rows,
                **blocks,
            )  # fmt: skip
    return (
        _sum_paths(dx, x), _sum_paths(ddelta, delta), _from_tiles(plan, da.sum((0, 2))).to(A.dtype),
        _sum_paths(db.sum(0), B), _sum_paths(dc.sum(0), C), None if D is None else dd.sum((0, 2)).to(D.dtype), dz,
        None if delta_bias is None else dbias.sum((0, 2)).to(delta_bias.dtype),
        None if initial_state is None else _from_tiles(plan, dinitial).to(initial_state.dtype),
    )  # fmt: skip


def _gradient_buffers(plan: Plan, x, delta, D, delta_bias, order, initial_state) -> tuple[Tensor | None, ...]:
    """Where the backward kernel writes the gradients of x, delta, A, B, C, D, bias and state, one place a contribution."""
    empty = torch.empty if order is None else torch.zeros  # the order may leave tokens out

    def buffer(*shape: int, dtype: torch.dtype = torch.float32, wanted: Tensor | None = x) -> Tensor | None:
        return None if wanted is None else empty(shape, dtype=dtype, device=x.device)

    outer, parts = (plan.batch, plan.paths), plan.blocks // plan.groups
    dx, ddelta = (
        buffer(*outer, plan.length, plan.channels, dtype=t.dtype if t.shape[1] == plan.paths else torch.float32)
        for t in (x, delta)
    )
    db, dc = (buffer(parts, *outer, plan.length, plan.groups, plan.states) for _ in "BC")
    da = buffer(*outer, plan.segments, plan.blocks, plan.tile.numel)
    dd, dbias = (buffer(*outer, plan.segments, plan.channels, wanted=t) for t in (D, delta_bias))
    return dx, ddelta, da, db, dc, dd, dbias, buffer(*outer, plan.blocks, plan.tile.numel, wanted=initial_state)


class _Inputs(NamedTuple):
    """The arguments as the kernels read them, and their strides: x, delta, B, C, z, order, seq_idx."""

    x: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    bias: Tensor | None
    order: Tensor | None
    seq_idx: Tensor | None
    initial: Tensor | None
    strides: tuple[tuple[int, ...], ...]
    wide: bool  # offsets of rows need 64 bits


def _inputs(plan, x, delta, A, B, C, D, z, delta_bias, order, seq_idx, initial_state) -> _Inputs:
    x, delta, B, C = (_rows(t.expand(-1, plan.paths, *t.shape[2:])) for t in (x, delta, B, C))
    A, D, bias, initial = (None if t is None else t.float().contiguous() for t in (A, D, delta_bias, initial_state))
    z, seq_idx = (None if t is None else _rows(t) for t in (z, seq_idx))
    order = None if order is None else _rows(order.expand(plan.batch, -1, -1))
    strides = tuple((0, 0) if t is None else t.stride()[:-1] for t in (x, delta, B, C, z, order, seq_idx))
    rows = [t.stride(2) for t in (x, delta, B, C)] + [plan.channels, plan.groups * plan.states, strides[4][1]]
    wide = plan.length * max(rows) >= WIDE
    return _Inputs(x, delta, A, B, C, D, z, bias, order, seq_idx, initial, strides, wide)


def _plan(x: Tensor, A: Tensor, B: Tensor, order: Tensor | None, registers: int) -> Plan:
    (batch, _, length, channels), (paths, _, states), groups = x.shape, A.shape, B.shape[3]
    processors, capability = _card(x.device)
    group, tile = channels // groups, tile_of(states, capability)
    steps = length if order is None else order.shape[-1]
    blocks = groups * cdiv(group, tile.channels)
    segments = segments_of(batch * paths * blocks, tile.warps, steps, processors, registers)
    segment = CHUNK * max(1, cdiv(cdiv(steps, CHUNK), segments))
    segments = max(1, cdiv(steps, segment))
    return Plan(batch, paths, length, steps, channels, group, groups, states, tile, blocks, segments, segment)


@cache
def _card(device: torch.device) -> tuple[int, int]:
    """Multiprocessors, and the first digit of the capability."""
    if device.type != "cuda":
        return PROCESSORS_WITHOUT_GPU, 9
    return torch.cuda.get_device_properties(device).multi_processor_count, torch.cuda.get_device_capability(device)[0]


def _on(x: Tensor):
    """Kernels are launched on the current device: make it the tensors' own."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


def _rows(t: Tensor) -> Tensor:
    """The tensor with the last axis contiguous; other strides stay as they are."""
    return t if t.shape[-1] <= 1 or t.stride(-1) == 1 else t.contiguous()


def _rowwise(plan: Plan) -> tuple[tuple[int], int, dict[str, int]]:
    """Grid, rows and block sizes of the kernels that treat every row (batch and token) alike."""
    rows, columns = plan.batch * plan.length, min(512, next_power_of_2(plan.channels))
    return (cdiv(rows, 4) * cdiv(plan.channels, columns),), rows, {"BL": 4, "BD": columns}


def _edge_or_zero(state: Tensor, given: Tensor | None) -> Tensor:
    return state.zero_() if given is None else state.copy_(given)


def _from_tiles(plan: Plan, tiles: Tensor) -> Tensor:
    """(..., blocks, numbers in a tile) -> (..., channels, states), without the padding."""
    tile, front = plan.tile, tiles.shape[:-2]
    rows = tiles.view(*front, plan.groups, -1, tile.rows, tile.states, tile.width).transpose(-1, -2)
    rows = rows.reshape(*front, plan.groups, -1, tile.states)[..., : plan.group, : plan.states]
    return rows.reshape(*front, plan.channels, plan.states).contiguous()


def _sum_paths(gradient: Tensor, like: Tensor) -> Tensor:
    """Summed over the paths where the argument has one for all of them, in its dtype."""
    if gradient.shape[1] != like.shape[1]:
        gradient = gradient.sum(1, keepdim=True)
    return gradient.to(like.dtype)


def _carry(
    plan: Plan, inputs: _Inputs, softplus: bool, reverse: bool, grad: Tensor | None = None,
    grad_state: Tensor | None = None, grad_stride: tuple[int, ...] = (0, 0, 0), scale: float = 1.0,
) -> Tensor | None:  # fmt: skip
    """What enters each segment, (batch, paths, segments, blocks, tile); None where the length is not split."""
    if plan.segments == 1:
        return None
    shape = (plan.batch, plan.paths, plan.segments)
    carry = inputs.A.new_empty((*shape, plan.blocks, plan.tile.numel))
    sums = inputs.A.new_empty((*shape, plan.channels))
    x, delta, b, c, *others = inputs.strides
    segment_kernel[(plan.programs,)](
        inputs.x, inputs.delta, inputs.A, inputs.C if reverse else inputs.B, inputs.z, inputs.bias, inputs.order,
        inputs.seq_idx, grad, carry, sums, x, delta, c if reverse else b, *others, grad_stride, scale,
        *plan.sizes, SOFTPLUS=softplus, WIDE=inputs.wide, REVERSE=reverse, UNROLL=plan.tile.unroll,
        maxnreg=REGISTERS, **plan.constants,
    )  # fmt: skip
    chain_kernel[(plan.programs // plan.segments,)](
        carry, sums, inputs.A, grad_state if reverse else inputs.initial, plan.paths, plan.channels, plan.group, plan.states,
        plan.blocks, plan.segments, REVERSE=reverse, **plan.constants,
    )  # fmt: skip
    return carry
