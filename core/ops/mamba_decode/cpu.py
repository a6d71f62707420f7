"""One token through Mamba mixers on the CPU: memory and threads around cpu_kernels.py."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from ..cpu.calls import addresses
from ..cpu.dots import team_of, tiers
from ..cpu.layer_kernel import LayerKernel, Plan, bits, state_fits
from ..decoding import States
from . import MambaWeights
from .cpu_kernels import decode


@lru_cache(256)
def plan(batch, model, channels, gated, rank, states, taps, kept, half, threads) -> Plan:
    width, told, size = channels * (1 + gated), rank + 2 * states, 2 if half else 4
    team = team_of(width * model * size, threads)
    work = {
        "in_tiers": width * model * size,
        "told_tiers": told * channels * size,
        "scan_tiers": channels * (size * rank + 12 * states),
        "out_tiers": model * channels * size,
    }
    ends = (batch * width, batch * (width + told), batch * (width + told + channels))
    sizes = {"batch": batch, "M": model, "D": channels, "R": rank, "N": states, "W": taps, "K": kept, "gate": gated}
    sizes |= {"half": half, "team": team} | {name: tiers(bytes_, team) for name, bytes_ in work.items()}
    return Plan(
        (batch, channels, kept), (batch, channels, states), {"inner": 0, "told": 4 * ends[0], "y": 4 * ends[1]}, ends[2],
        sizes, team,
    )  # fmt: skip


def _plan(x: Tensor, w: MambaWeights, states: States) -> tuple[Plan, dict[str, int]] | None:
    """None where the weights or states are not such as the kernel reads."""
    (batch, _, model), (conv, ssm), dtype = x.shape, states, x.dtype
    if w.A_log.dim() != 2 or w.conv.dim() != 3 or w.dt_proj.dim() != 2:
        return None
    (channels, size), taps, rank = w.A_log.shape, w.conv.shape[2], w.dt_proj.shape[1]
    gated, kept = int(w.in_proj.shape[0] != channels), w.A_log.dtype
    found = plan(
        batch, model, channels, gated, rank, size, taps, taps - 1 if conv is None else conv.shape[-1],
        dtype == torch.bfloat16, torch.get_num_threads(),
    )  # fmt: skip
    if kept not in (dtype, torch.float32) or found.conv_shape[2] < taps - 1:
        return None
    if not (state_fits(conv, found.conv_shape) and state_fits(ssm, found.ssm_shape)):
        return None
    width, told = channels * (1 + gated), rank + 2 * size
    norm_dt, norm_B, norm_C = w.norms or (None,) * 3
    read = addresses(
        in_w=(w.in_proj, (width, model), dtype), in_b=(w.in_bias, (width,), dtype),
        conv_w=(w.conv, (channels, 1, taps), dtype), conv_b=(w.conv_bias, (channels,), dtype),
        x_w=(w.x_proj, (told, channels), dtype), dt_w=(w.dt_proj, (channels, rank), dtype),
        dt_b=(w.dt_bias, (channels,), dtype), A_log=(w.A_log, (channels, size), kept), skip=(w.D, (channels,), kept),
        out_w=(w.out_proj, (model, channels), dtype), out_b=(w.out_bias, (model,), dtype),
        norm_dt=(norm_dt, (rank,), dtype), norm_B=(norm_B, (size,), dtype), norm_C=(norm_C, (size,), dtype),
    )  # fmt: skip
    if read is None:
        return None
    read |= {"log_half": kept == torch.bfloat16, "norms": w.norms is not None, "eps": bits(w.norms_eps)}
    return found, read


kernel = LayerKernel(decode, _plan)
