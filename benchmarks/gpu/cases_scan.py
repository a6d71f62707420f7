"""The selective scan: one and four paths, raster and random order, 512 to 131,072 tokens."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from ...core.ops.selective_scan import selective_scan
from .cases import KERNEL, Calls, Case, Work, flash_attention, numbers, passes
from .device import Device

BATCH, LENGTH, CHANNELS, STATES = 8, 2048, 1536, 16
TOKENS = 131_072
LENGTHS = (512, 2048, 8192, 32_768, 131_072)
PASSES = ("forward", "backward", "forward+backward")


def cases(device: Device) -> Iterator[Case]:
    batch, length = device.pick((BATCH, LENGTH), (1, 5))
    for paths, order in ((1, "raster"), (1, "random"), (4, "raster"), (4, "random")):
        for which in PASSES if (paths, order) == (1, "raster") else ("forward", "forward+backward"):
            yield _case(device, batch, length, paths, order, which, reference=(paths, order) == (1, "raster"))
    for length in device.pick(LENGTHS, (4,)):
        for which in ("forward", "forward+backward"):
            yield _case(device, device.pick(TOKENS, length) // length, length, 1, "raster", which)


def _case(device: Device, batch: int, length: int, paths: int, order: str, which: str, reference: bool = False) -> Case:
    channels, states = device.pick((CHANNELS, STATES), (4, 4))
    build = partial(_calls, batch, length, channels, states, paths, order, which, reference)
    what = f"{paths} path{'s'[: paths != 1]}, {order} order, batch {batch}, length {length}, {channels} channels, {states} states"
    return Case(f"scan {which}, {what}", build, work(batch * length, channels, states, paths, which), batch * length)


def work(tokens: int, channels: int, states: int, paths: int, which: str, size: int = 2) -> Work:
    """x, the gate and the output once, the step once a path; exponentials of every state, of softplus and of the gate. The
    backward reads all that again with the output's gradient and writes gradients; it must raise to powers once more.
    """
    rows, matrices = tokens * channels * size, 2 * tokens * paths * states * size
    ahead = Work((3 + paths) * rows + matrices, tokens * channels * (paths * (states + 1) + 1))
    back = Work((5 + 2 * paths) * rows + 2 * matrices, ahead.exponentials)
    both = Work(ahead.bytes + back.bytes, ahead.exponentials + back.exponentials)
    return {"forward": ahead, "backward": back, "forward+backward": both}[which]


def _calls(batch, length, channels, states, paths, order, which, reference, device: Device) -> Calls:
    given, options = arguments(device, batch, length, channels, states, paths, order)
    found = {KERNEL: passes(selective_scan, given, which, **options)}
    if reference:
        found["reference"] = passes(selective_scan, given, which, **options | {"backend": "reference"})
    if paths == 1:
        found["FlashAttention"] = flash_attention(device, batch, length, channels, which)
        if order == "raster" and device.kind == "cuda":
            found["official CUDA scan"] = _official(given, which)
    return found


def arguments(
    device: Device, batch: int, length: int, channels: int, states: int, paths: int = 1, order: str = "raster"
):
    """What a mixer gives to the scan: (tensors that want gradients, options)."""
    several, own = ((batch, paths, length), (paths,)) if paths > 1 else ((batch, length), ())
    decay = -torch.arange(1.0, states + 1, device=device.name).expand(*own, channels, states)
    given = {"x": numbers(device, batch, length, channels), "delta": numbers(device, *several, channels, shift=-3)}
    given |= {"A": decay.clone().requires_grad_()}
    given |= {"B": numbers(device, *several, states), "C": numbers(device, *several, states)}
    given |= {"D": numbers(device, *own, channels, dtype=torch.float32), "z": numbers(device, batch, length, channels)}
    given |= {"delta_bias": numbers(device, *own, channels, dtype=torch.float32, scale=0.1)}
    options = {"delta_softplus": True, "backend": "gpu"}
    if order == "random" or paths > 1:
        options["order"] = orders(device, paths, length, order)
    return given, options


def orders(device: Device, paths: int, length: int, order: str) -> torch.Tensor:
    """(paths, length) int32: random ones, or the raster order forwards and backwards in turn."""
    g = torch.Generator().manual_seed(0)
    raster = torch.arange(length)
    rows = [
        torch.randperm(length, generator=g) if order == "random" else raster.flip(0) if i % 2 else raster
        for i in range(paths)
    ]
    return torch.stack(rows).int().to(device.name)


def _official(given: dict, which: str):
    """mamba_ssm's kernel on the same numbers, channels before tokens, as it wants them."""

    def run(**tensors):
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

        return selective_scan_fn(**tensors, delta_softplus=True)

    names = {"x": "u"}
    swapped = {
        names.get(name, name): (
            t.detach().transpose(1, 2).contiguous() if t.dim() == 3 else t.detach().clone()
        ).requires_grad_()
        for name, t in given.items()
    }
    return passes(run, swapped, which)
