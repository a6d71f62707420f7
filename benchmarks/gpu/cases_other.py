"""The convolution, state space duality (Mamba-2) and the trapezoidal scan (Mamba-3)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch.nn import functional as F

from ...core.ops.causal_conv1d import causal_conv1d
from ...core.ops.state_space_duality import state_space_duality
from ...core.ops.trapezoidal_scan import trapezoidal_scan
from .cases import KERNEL, Calls, Case, Work, flash_attention, numbers, passes
from .cases_scan import BATCH, CHANNELS, LENGTH, orders
from .device import Device

TAPS = 4
HEADS, HEADDIM, STATES = 24, 64, 128
CHUNK = 64  # steps whose pairs are multiplied, for the flops that the duality cannot do without
LENGTHS = (2048, 131_072)


def convolution_cases(device: Device) -> Iterator[Case]:
    batch, length, channels = device.pick((BATCH, LENGTH, CHANNELS), (1, 5, 4))
    for paths, order in ((1, "raster"), (1, "random"), (4, "random")):
        for which in ("forward", "forward+backward"):
            numbers_moved = batch * length * channels * (1 + paths) * (1 if which == "forward" else 2.5)
            name = f"convolution {which}, {paths} path{'s'[: paths != 1]}, {order} order, batch {batch}, length {length}, {channels} channels, 4 taps"  # noqa: E501
            build = partial(_convolutions, batch, length, channels, paths, order, which)
            yield Case(name, build, Work(2 * numbers_moved, numbers_moved / (1 + paths) * paths), batch * length)


def _convolutions(batch, length, channels, paths, order, which, device: Device) -> Calls:
    own = (paths,) if paths > 1 else ()
    given = {"x": numbers(device, batch, length, channels), "weight": numbers(device, *own, channels, TAPS)}
    given["bias"] = numbers(device, *own, channels)
    options = {"activation": "silu", "backend": "gpu"}
    if order == "random":
        options["order"] = orders(device, paths, length, order)
    found = {KERNEL: passes(causal_conv1d, given, which, **options)}
    if order == "raster":
        found["conv1d"] = passes(_library, given, which)
        if device.kind == "cuda":
            found["official CUDA convolution"] = passes(_official_convolution, given, which)
    return found


def _library(x, weight, bias):
    y = F.conv1d(F.pad(x.transpose(1, 2), (weight.shape[1] - 1, 0)), weight[:, None], bias, groups=x.shape[2])
    return F.silu(y).transpose(1, 2)


def _official_convolution(x, weight, bias):
    from causal_conv1d import causal_conv1d_fn

    return causal_conv1d_fn(x.transpose(1, 2), weight, bias, activation="silu")


def duality_cases(device: Device) -> Iterator[Case]:
    for length in device.pick(LENGTHS, (5,)):
        batch = device.pick(BATCH if length == LENGTH else 1, 1)
        for which in ("forward", "forward+backward"):
            yield _heads_case("state space duality", _dualities, device, batch, length, which)
    for rank in (1, 4):
        batch, length = device.pick((BATCH, LENGTH), (1, 3))
        for which in ("forward", "forward+backward"):
            yield _heads_case("trapezoidal scan", partial(_trapezoids, rank), device, batch, length, which, rank)


def _heads_case(name, build, device: Device, batch: int, length: int, which: str, rank: int = 1) -> Case:
    heads, width, states = device.pick((HEADS, HEADDIM, STATES), (2, 4, 4))
    rows = batch * length * rank
    groups = 1 if name == "state space duality" else heads
    times = 1 if which == "forward" else 3
    # x and y, B and C; what goes into states, what comes out of them, and the pairs of a chunk twice.
    moved = 2 * rows * (2 * heads * width + 2 * groups * states)
    flops = 2 * rows * (2 * heads * width * states + CHUNK * (groups * states + heads * width) / 2)
    label = f"{name} {which}, batch {batch}, length {length}, {heads} heads of {width}, {states} states"
    label += f", rank {rank}" if name == "trapezoidal scan" else ""
    return Case(
        label,
        partial(build, batch, length, heads, width, states, which),
        Work(times * moved, 0, times * flops),
        batch * length,
    )


def _dualities(batch, length, heads, width, states, which, device: Device) -> Calls:
    given = {"x": numbers(device, batch, length, heads, width), "dt": numbers(device, batch, length, heads, shift=-3)}
    given |= {"A": numbers(device, heads, dtype=torch.float32, scale=0.1, shift=-1)}
    given |= {name: numbers(device, batch, length, 1, states) for name in "BC"}
    given |= {"D": numbers(device, heads, dtype=torch.float32)}
    options = {"dt_softplus": True}
    found = {KERNEL: passes(state_space_duality, given, which, **options, backend="gpu")}
    if length <= LENGTH:
        found["reference"] = passes(state_space_duality, given, which, **options, backend="reference")
    found["FlashAttention"] = flash_attention(device, batch, length, heads * width, which)
    if device.kind == "cuda":
        found["official Triton kernels"] = passes(_official_duality, given, which)
    return found


def _official_duality(x, dt, A, B, C, D):
    from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined

    return mamba_chunk_scan_combined(x, dt, A, B, C, 256, D=D, dt_softplus=True)


def _trapezoids(rank, batch, length, heads, width, states, which, device: Device) -> Calls:
    f32 = {"dtype": torch.float32}
    given = {"x": numbers(device, batch, length, rank, heads, width)}
    with torch.no_grad():
        told = [numbers(device, batch, length, heads, **f32).sigmoid() for _ in range(3)]
    given |= {
        "log_decay": (-told[0]).requires_grad_(),
        "dt": told[1].requires_grad_(),
        "trapezoid": told[2].requires_grad_(),
    }
    given |= {name: numbers(device, batch, length, rank, heads, states) for name in "BC"}
    found = {KERNEL: passes(trapezoidal_scan, given, which, backend="gpu")}
    if rank == 1:
        found["reference"] = passes(trapezoidal_scan, given, which, backend="reference")
        found["FlashAttention"] = flash_attention(device, batch, length, heads * width, which)
    return found
