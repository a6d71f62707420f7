"""One token through Mamba-2 mixers on the CPU: memory and threads around cpu_kernels.py."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from ..dots import team_of, tiers
from ..layer_kernel import Layer, LayerKernel, addresses, bits, state_fits
from ..one_token import contiguous_as
from . import Mamba2Weights, States
from .cpu_kernels import RECORD, step


class Plan(NamedTuple):
    """What follows from a mixer's sizes.

    shapes: of the weights that are of one dtype, in the order of _plan. places: where in the scratch memory, in bytes,
    inner, steps and y begin. floats: of scratch memory. sizes: the record from batch to K. tiers: the record's.
    """

    shapes: tuple
    conv_shape: tuple[int, ...]
    ssm_shape: tuple[int, ...]
    places: tuple[int, int, int]
    floats: int
    sizes: tuple[int, ...]
    team: int
    tiers: tuple[int, ...]


@lru_cache(256)
def plan(batch, model, heads, headdim, groups, norm_groups, states, taps, kept, half, threads) -> Plan:
    channels, shared = heads * headdim, 2 * groups * states
    width, size = 2 * channels + shared + heads, 2 if half else 4
    team = team_of(width * model * size, threads)
    work = (width * model * size, 8 * channels * states, model * channels * size)
    ends = (batch * width, batch * (width + 2 * heads), batch * (width + 2 * heads + channels))
    return Plan(
        ((width, model), (width,), (channels + shared, 1, taps), (channels + shared,), (channels,), (model, channels), (model,)),
        (batch, channels + shared, kept), (batch, heads, headdim, states), (0, 4 * ends[0], 4 * ends[1]), ends[2],
        (batch, model, channels, heads, headdim, groups, norm_groups, states, taps, kept), team,
        tuple(tiers(bytes_, team) for bytes_ in work),
    )  # fmt: skip


def _plan(x: Tensor, w: Mamba2Weights, states: States) -> Plan | None:
    """None where the weights or states are not such as the kernel reads."""
    (batch, _, model), (conv, ssm), dtype = x.shape, states, x.dtype
    heads, convolved, kept = w.A_log.shape[0], w.conv.shape[0], w.A_log.dtype
    channels = heads * w.headdim
    if w.conv.dim() != 3 or heads % w.groups or channels % w.norm_groups or (convolved - channels) % (2 * w.groups):
        return None
    size, taps = (convolved - channels) // (2 * w.groups), w.conv.shape[2]
    found = plan(
        batch, model, heads, w.headdim, w.groups, w.norm_groups, size, taps, taps - 1 if conv is None else conv.shape[-1],
        dtype == torch.bfloat16, torch.get_num_threads(),
    )  # fmt: skip
    same = (w.in_proj, w.in_bias, w.conv, w.conv_bias, w.norm, w.out_proj, w.out_bias)
    fits = (
        all(t is None or contiguous_as(t, shape, dtype) for t, shape in zip(same, found.shapes, strict=True))
        and size > 0
        and kept in (dtype, torch.float32)
        and contiguous_as(w.A_log, (heads,), kept)
        and contiguous_as(w.dt_bias, (heads,), kept)
        and (contiguous_as(w.D, (heads,), kept) or contiguous_as(w.D, (channels,), kept))
        and found.conv_shape[2] >= taps - 1
        and state_fits(conv, found.conv_shape)
        and state_fits(ssm, found.ssm_shape)
    )
    return found if fits else None


def _record(p: Plan, layer: Layer) -> tuple:
    """The fields of cpu_kernels.RECORD in turn."""
    w = layer.weights
    return (
        *bits(w.norm_eps, layer.norm_eps, *w.dt_limit), *layer.enter, layer.x, *addresses(*w[:10], *layer.states),
        *(layer.memory + place for place in p.places), layer.out, *addresses(*layer.after), *p.sizes,
        int(w.D.shape != w.A_log.shape), int(w.norm is not None), int(w.norm is not None and w.norm_before_gate),
        int(layer.enter[0] != 0), int(w.in_proj.dtype == torch.bfloat16), int(w.A_log.dtype == torch.bfloat16), layer.more,
        p.team, *p.tiers,
    )  # fmt: skip


layers = LayerKernel(step, _plan, _record, RECORD)
