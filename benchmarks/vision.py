"""Image backbones against timm's networks of about equal cost, and the cross scan against the usual way of doing it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..core import scans
from ..core.ops.selective_scan import selective_scan
from .timing import compare, row

# One size of each paper, the smallest.
BACKBONES = (
    "vim_tiny_patch16_224", "vmamba_tiny", "plainmamba_l1", "localvim_tiny", "localvmamba_tiny", "efficientvmamba_tiny",
    "mambavision_tiny", "msvmamba_nano", "groupmamba_tiny", "spatialmamba_tiny", "vssd_mini", "videomamba_tiny_patch16_224",
    "mamband_small_patch8",
)  # fmt: skip
VISION_TRANSFORMERS = ("deit_tiny_patch16_224", "deit_small_patch16_224", "deit_base_patch16_224")
CONVNEXTS = ("convnext_atto", "convnext_femto", "convnext_pico", "convnext_nano", "convnext_tiny", "convnext_small")
PIXELS = 224
GRID, CHANNELS, STATES = (56, 56), 192, 16  # of the first stage of the first VMamba-T


def backbones_suite(device: str):
    """Forward and training step of each backbone against a DeiT and a ConvNeXt of the nearest number of FLOPs."""
    import timm

    from ..domains import vision  # noqa: F401  registers the models

    wanted = os.environ.get("POLYMAMBA_BENCH_MODELS")
    costs = {name: _flops(timm.create_model, name) for name in (*VISION_TRANSFORMERS, *CONVNEXTS)}
    for name in BACKBONES if wanted is None else wanted.split(","):
        torch.manual_seed(0)
        model = timm.create_model(name).to(device)
        cost = model.flops(1)
        for group in (VISION_TRANSFORMERS, CONVNEXTS):
            _, other = min((abs(costs[each] / cost - 1), each) for each in group)
            yield from _against(name, model, other, timm.create_model(other).to(device), costs[other], device)


def _against(name: str, model: nn.Module, other: str, baseline: nn.Module, cost: int, device: str):
    batch = 1 if device == "cpu" else 64
    x = torch.randn(batch, 3, PIXELS, PIXELS, device=device)
    facts = {"gflops": round(model.flops(1) / 1e9, 2), "against_gflops": round(cost / 1e9, 2)}
    for what, run, rounds in (("forward", _forward, 5), ("forward+backward", _train, 3)):
        measured = compare({name: partial(run, model, x), other: partial(run, baseline, x)}, rounds)
        yield row("vision", f"{what}, {PIXELS} pixels, batch {batch}", measured, name, other, **facts)


def _forward(model: nn.Module, x: Tensor) -> None:
    model.eval()
    with torch.no_grad():
        model(x)


def _train(model: nn.Module, x: Tensor) -> None:
    model.train()
    torch.autograd.grad(model(x).sum(), list(model.parameters()))


def _flops(make, name: str) -> int:
    """Floating point operations of one image, counted without computing them."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        make(name).eval()(torch.empty(1, 3, PIXELS, PIXELS))
    return counter.get_total_flops()


def cross_suite(device: str):
    """Four paths over a grid in one call that reads them by their orders, against four permuted copies, one scan of them and four
    copies back: time, and the memory that each needs at its peak."""
    given = arguments(device)
    case = f"{GRID[0]}x{GRID[1]} tokens, {CHANNELS} channels, {STATES} states, 4 paths"
    ways = {"by orders": by_orders, "by copies": by_copies}
    for what, run in (("forward", _no_grad), ("forward+backward", _gradients)):
        measured = compare({name: partial(run, way, given) for name, way in ways.items()}, 9)
        facts = {f"{name.replace(' ', '_')}_megabytes": _peak(name, what, device) for name in ways}
        yield row("cross", f"{what}, {case}", measured, *ways, **facts)


def arguments(device: str = "cpu", batch: int = 1) -> dict[str, Tensor]:
    """What a cross scan is given, by token: x (batch, tokens, channels), delta, B, C with a path axis."""
    torch.manual_seed(0)
    tokens = GRID[0] * GRID[1]
    made = {
        "x": torch.randn(batch, tokens, CHANNELS), "delta": torch.randn(batch, 4, tokens, CHANNELS) - 3,
        "A": -torch.rand(4, CHANNELS, STATES) * STATES, "B": torch.randn(batch, 4, tokens, STATES),
        "C": torch.randn(batch, 4, tokens, STATES), "D": torch.ones(4, CHANNELS),
    }  # fmt: skip
    return {name: t.to(device).requires_grad_() for name, t in made.items()}


def by_orders(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """The core's way: (batch, tokens, channels)."""
    order = scans.get("cross").order(GRID, x.device)
    return selective_scan(x, delta, A, B, C, D, delta_softplus=True, order=order)


def by_copies(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """The usual way, the same sum: x is copied into each path's order, and what the scan says copied back.

    delta, B and C are taken for what projections of those copies say, so they are not copied again.
    """
    image = x.unflatten(1, GRID)
    rows, columns = x, image.transpose(1, 2).flatten(1, 2)
    copies = torch.stack([rows, columns, rows.flip(1), columns.flip(1)], 1)
    y = selective_scan(copies, delta, A, B, C, D, delta_softplus=True, merge="none")
    forth = y[:, :2] + y[:, 2:].flip(2)
    return forth[:, 0] + forth[:, 1].unflatten(1, GRID[::-1]).transpose(1, 2).flatten(1, 2)


def _no_grad(way, given: dict[str, Tensor]) -> None:
    with torch.no_grad():
        way(**given)


def _gradients(way, given: dict[str, Tensor]) -> None:
    torch.autograd.grad(way(**given).sum(), list(given.values()))


PEAK = """
import sys
from polymamba.benchmarks import vision
way, run = {"by orders": vision.by_orders, "by copies": vision.by_copies}[sys.argv[1]], sys.argv[2]
run = vision._no_grad if run == "forward" else vision._gradients
given = vision.arguments(batch=4)
small = {name: t.detach()[:1].requires_grad_() if name in ("x", "delta", "B", "C") else t for name, t in given.items()}
def kilobytes(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))
run(way, small)
open("/proc/self/clear_refs", "w").write("5")  # resets the peak
before = kilobytes("VmRSS")
run(way, given)
print((kilobytes("VmHWM") - before) / 1024)
"""


def _peak(way: str, what: str, device: str) -> float | None:
    """Megabytes that a call of a batch of 4 needs beyond what it is given; of a fresh process on a CPU."""
    if device == "cuda":
        given = arguments(device, 4)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        (_no_grad if what == "forward" else _gradients)({"by orders": by_orders, "by copies": by_copies}[way], given)
        return round((torch.cuda.max_memory_allocated() - before) / 2**20, 1)
    if sys.platform != "linux":
        return None
    done = subprocess.run([sys.executable, "-c", PEAK, way, what], capture_output=True, text=True, check=True)
    return round(float(json.loads(done.stdout.strip().splitlines()[-1])), 1)
