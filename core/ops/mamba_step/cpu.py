"""One token through Mamba mixers on the CPU: memory and threads around cpu_kernels.py."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from ..dots import team_of, tiers
from ..one_token import contiguous_as
from ..phases import give_way
from . import MambaWeights, States
from .cpu_kernels import RECORD
from .cpu_kernels import step as kernel

COUNTERS = (0,) * sum(name.startswith(("begun", "done")) for name in RECORD.names)
NO_NORM = (0, 0, 0, 0, 0)


class Plan(NamedTuple):
    """What follows from a mixer's sizes.

    shapes: of the weights that are of one dtype, in the order of _of_one_dtype. places: where in the scratch memory, in
    bytes, inner, told and y begin. floats: of scratch memory. numbers: the record from batch to log_half, and its shares.
    """

    shapes: tuple
    conv_shape: tuple[int, ...]
    ssm_shape: tuple[int, ...]
    places: tuple[int, int, int]
    floats: int
    sizes: tuple[int, ...]
    shares: tuple[int, ...]


@lru_cache(256)
def plan(batch, model, channels, gated, rank, states, taps, kept, half, threads) -> Plan:
    width, told, size = channels * (1 + gated), rank + 2 * states, 2 if half else 4
    team = team_of(width * model * size, threads)
    work = (
        width * model * size,
        told * channels * size,
        channels * (size * rank + 12 * states),
        model * channels * size,
    )
    ends = (batch * width, batch * (width + told), batch * (width + told + channels))
    return Plan(
        ((width, model), (width,), (channels, 1, taps), (channels,), (told, channels), (channels, rank), (channels,),
         (model, channels), (model,), (rank,), (states,), (states,)),
        (batch, channels, kept), (batch, channels, states), (0, 4 * ends[0], 4 * ends[1]), ends[2],
        (batch, model, channels, rank, states, taps, kept, gated), (team, *(tiers(bytes_, team) for bytes_ in work)),
    )  # fmt: skip


def step(x: Tensor, weights: MambaWeights, states: States, in_place: bool):
    """Arguments and results as mamba_step's, for a CPU tensor of few rows."""
    found = _plan(x, weights, states, in_place)
    if found is None:
        return None
    row, out = x.float().contiguous(), torch.empty(x.shape, dtype=torch.float32)
    memory = torch.empty(found.floats, dtype=torch.float32)
    after = states if in_place else _new(found)
    record = array("q", _record(found, NO_NORM, 0.0, row.data_ptr(), weights, states, after, memory, out, 0))
    kernel.run(record.buffer_info()[0], found.shares[0])
    return out.to(x.dtype), after


def steps(
    hidden: Tensor, weights: Sequence[MambaWeights], norms: Sequence[tuple[Tensor, float]], states: Sequence[States]
):
    """Arguments and results as mamba_steps's, for a CPU tensor of few rows."""
    plans = [_plan(hidden, *layer, False) for layer in zip(weights, states, strict=True)]
    channels = hidden.shape[-1:]
    if None in plans or not all(contiguous_as(norm, channels, norm.dtype) for norm, _ in norms):
        return None
    first = hidden.float().contiguous()
    rows = torch.empty((3, *hidden.shape), dtype=torch.float32)
    out, residual, normed = rows.unbind()
    memory = torch.empty(max(p.floats for p in plans), dtype=torch.float32)
    afters, record, more = [_new(p) for p in plans], array("q"), len(plans)
    before = (first.data_ptr(), 0)
    for p, w, (norm, eps), state, after in zip(plans, weights, norms, states, afters, strict=True):
        more -= 1
        enter = (*before, residual.data_ptr(), norm.data_ptr(), int(norm.dtype == torch.bfloat16))
        record.extend(_record(p, enter, eps, normed.data_ptr(), w, state, after, memory, out, more))
        before = (out.data_ptr(), residual.data_ptr())
    kernel.run(record.buffer_info()[0], plans[0].shares[0])
    return out.to(hidden.dtype), residual, afters


def _plan(x: Tensor, w: MambaWeights, states: States, in_place: bool) -> Plan | None:
    """None where the weights or states are not such as the kernel reads."""
    (batch, _, model), (conv, ssm), dtype = x.shape, states, x.dtype
    if w.A_log.dim() != 2 or w.conv.dim() != 3 or w.dt_proj.dim() != 2:
        return None
    (channels, size), taps = w.A_log.shape, w.conv.shape[2]
    found = plan(
        batch, model, channels, int(w.in_proj.shape[0] != channels), w.dt_proj.shape[1], size, taps,
        taps - 1 if conv is None else conv.shape[-1], dtype == torch.bfloat16, torch.get_num_threads(),
    )  # fmt: skip
    same = (w.in_proj, w.in_bias, w.conv, w.conv_bias, w.x_proj, w.dt_proj, w.dt_bias, w.out_proj, w.out_bias)
    if w.norms is not None:
        same += w.norms
    kept = w.A_log.dtype
    fits = (
        all(t is None or contiguous_as(t, shape, dtype) for t, shape in zip(same, found.shapes, strict=False))
        and kept in (dtype, torch.float32)
        and contiguous_as(w.A_log, (channels, size), kept)
        and contiguous_as(w.D, (channels,), kept)
        and found.conv_shape[2] >= taps - 1
        and (conv is not None or not in_place)
        and (conv is None or contiguous_as(conv, found.conv_shape, torch.float32))
        and (ssm is None or contiguous_as(ssm, found.ssm_shape, torch.float32))
    )
    return found if fits else None


def _new(p: Plan) -> tuple[Tensor, Tensor]:
    return torch.empty(p.conv_shape, dtype=torch.float32), torch.empty(p.ssm_shape, dtype=torch.float32)


def _record(
    p: Plan, enter, norm_eps, x, w: MambaWeights, states: States, after, memory: Tensor, out: Tensor, more
) -> tuple:
    """A mixer's record: the fields of cpu_kernels.RECORD in turn."""
    weights = [0 if t is None else t.data_ptr() for t in (*w[:11], *(w.norms or (None,) * 3), *states)]
    scratch, kinds = memory.data_ptr(), (int(w.in_proj.dtype == torch.bfloat16), int(w.A_log.dtype == torch.bfloat16))
    return (
        *_bits(w.norms_eps, norm_eps), *enter, x, *weights, *(scratch + place for place in p.places), out.data_ptr(),
        after[0].data_ptr(), after[1].data_ptr(), *p.sizes, int(enter[0] != 0), *kinds, int(w.norms is not None), more,
        *p.shares, give_way(), *COUNTERS,
    )  # fmt: skip


@lru_cache(256)
def _bits(*values: float) -> tuple[int, ...]:
    """Each float64 as the int64 of the same bits."""
    return struct.unpack(f"{len(values)}q", struct.pack(f"{len(values)}d", *values))
