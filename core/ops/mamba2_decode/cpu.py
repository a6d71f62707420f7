"""One token through Mamba-2 mixers on the CPU: memory and threads around cpu_kernels.py."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from ..cpu.calls import addresses
from ..cpu.dots import team_of, tiers
from ..cpu.layer_kernel import LayerKernel, Plan, bits, state_fits
from ..decoding import States
from . import Mamba2Weights
from .cpu_kernels import decode


@lru_cache(256)
def plan(batch, model, heads, headdim, groups, norm_groups, states, taps, kept, half, threads) -> Plan:
    channels, shared = heads * headdim, 2 * groups * states
    width, size = 2 * channels + shared + heads, 2 if half else 4
    team = team_of(width * model * size, threads)
    work = {
        "in_tiers": width * model * size,
        "scan_tiers": 8 * channels * states,
        "out_tiers": model * channels * size,
    }
    ends = (batch * width, batch * (width + 2 * heads), batch * (width + 2 * heads + channels))
    sizes = {"batch": batch, "M": model, "D": channels, "H": heads, "P": headdim, "G": groups, "E": norm_groups}
    sizes |= {"S": states, "W": taps, "K": kept, "half": half, "team": team}
    sizes |= {name: tiers(bytes_, team) for name, bytes_ in work.items()}
    return Plan(
        (batch, channels + shared, kept), (batch, heads, headdim, states),
        {"inner": 0, "steps": 4 * ends[0], "y": 4 * ends[1]}, ends[2], sizes, team,
    )  # fmt: skip


def _plan(x: Tensor, w: Mamba2Weights, states: States) -> tuple[Plan, dict[str, int]] | None:
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
    if size <= 0 or kept not in (dtype, torch.float32) or found.conv_shape[2] < taps - 1:
        return None
    if not (state_fits(conv, found.conv_shape) and state_fits(ssm, found.ssm_shape)):
        return None
    width, skips = channels + convolved + heads, w.D.shape[0] if w.D.dim() == 1 else 0
    if skips not in (heads, channels):
        return None
    read = addresses(
        in_w=(w.in_proj, (width, model), dtype), in_b=(w.in_bias, (width,), dtype),
        conv_w=(w.conv, (convolved, 1, taps), dtype), conv_b=(w.conv_bias, (convolved,), dtype),
        dt_b=(w.dt_bias, (heads,), kept), A_log=(w.A_log, (heads,), kept), skip=(w.D, (skips,), kept),
        gated_w=(w.norm, (channels,), dtype), out_w=(w.out_proj, (model, channels), dtype), out_b=(w.out_bias, (model,), dtype),
    )  # fmt: skip
    if read is None:
        return None
    low, high = w.dt_limit
    read |= {"eps": bits(w.norm_eps), "low": bits(low), "high": bits(high), "log_half": kept == torch.bfloat16}
    normed = w.norm is not None
    read |= {"skip_channels": skips != heads, "normed": normed, "norm_first": normed and w.norm_before_gate}
    return found, read


kernel = LayerKernel(decode, _plan)
