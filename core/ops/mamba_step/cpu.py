"""One token through Mamba mixers on the CPU: memory and threads around cpu_kernels.py."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from ..dots import team_of, tiers
from ..layer_kernel import Layer, LayerKernel, addresses, bits, state_fits
from ..one_token import contiguous_as
from . import MambaWeights, States
from .cpu_kernels import RECORD, step


class Plan(NamedTuple):
    """What follows from a mixer's sizes.

    shapes: of the weights that are of one dtype, in the order of _plan. places: where in the scratch memory, in
    bytes, inner, told and y begin. floats: of scratch memory. sizes: the record from batch to gate. tiers: the record's.
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
        (batch, model, channels, rank, states, taps, kept, gated), team, tuple(tiers(bytes_, team) for bytes_ in work),
    )  # fmt: skip


def _plan(x: Tensor, w: MambaWeights, states: States) -> Plan | None:
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
        and state_fits(conv, found.conv_shape)
        and state_fits(ssm, found.ssm_shape)
    )
    return found if fits else None


def _record(p: Plan, layer: Layer) -> tuple:
    """The fields of cpu_kernels.RECORD in turn."""
    w = layer.weights
    return (
        *bits(w.norms_eps, layer.norm_eps), *layer.enter, layer.x,
        *addresses(*w[:11], *(w.norms or (None,) * 3), *layer.states), *(layer.memory + place for place in p.places),
        layer.out, *addresses(*layer.after), *p.sizes, int(layer.enter[0] != 0), int(w.in_proj.dtype == torch.bfloat16),
        int(w.A_log.dtype == torch.bfloat16), int(w.norms is not None), layer.more, p.team, *p.tiers,
    )  # fmt: skip


layers = LayerKernel(step, _plan, _record, RECORD)
