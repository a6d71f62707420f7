"""Segmentation: time and memory of a training step of each network against the same network without its Mamba layers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import nn

from .timing import in_turn, row

VOLUMES = {
    "U-Mamba Bot": ("umamba", {"where": "bottleneck"}),
    "U-Mamba Enc": ("umamba", {"where": "encoder"}),
    "SegMamba": ("segmamba", {}),
    "LightM-UNet": ("lightm_unet", {}),
    "nnMamba": ("nnmamba", {}),
}
IMAGES = {
    "U-Mamba Enc, 2-D": ("umamba", {"where": "encoder"}),
    "VM-UNet": ("vm_unet", {}),
    "Swin-UMamba": ("swin_umamba", {}),
    "Mamba-UNet": ("mamba_unet", {}),
    "UltraLight VM-UNet": ("ultralight_vm_unet", {}),
}
BATCH, SIDES = 2, {3: 32, 2: 128}

PEAK = """
import sys
from polymamba.benchmarks.medical import built, step
name, axes, mamba = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "True"
model = built(name, axes, mamba, "cpu")
def kilobytes(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))
step(model, axes, "cpu", 1)
open("/proc/self/clear_refs", "w").write("5")  # resets the peak
before = kilobytes("VmRSS")
step(model, axes, "cpu")
print(kilobytes("VmHWM") - before)
"""


def training_suite(device: str) -> Iterator[dict]:
    """CPU (on a GPU wall-clock) seconds and peak memory of forward and backward, with and without the Mamba layers."""
    for axes, networks in ((3, VOLUMES), (2, IMAGES)):
        for name in networks:
            twins = {what: built(name, axes, mamba, device) for what, mamba in (("with", True), ("without", False))}
            functions = {what: partial(step, model, axes, device) for what, model in twins.items()}
            measured = in_turn(functions, device)
            facts: dict[str, Any] = {
                f"parameters_{what}": sum(p.numel() for p in model.parameters()) for what, model in twins.items()
            }
            if device == "cpu" and sys.platform == "linux":
                peaks = {what: _peak(name, axes, what == "with") for what in twins}
                facts |= {f"megabytes_{what}": round(peak, 1) for what, peak in peaks.items()}
                facts["memory_ratio"] = round(peaks["with"] / peaks["without"], 3)
            sides = "x".join([str(SIDES[axes])] * axes)
            case = f"{name}, small, {BATCH} patches of {sides}, forward+backward"
            yield row("medical", case, measured, "with", "without", **facts)


def built(name: str, axes: int, mamba: bool, device: str) -> nn.Module:
    """A small network for patches of this module's sizes, one channel and three classes."""
    module, options = {**VOLUMES, **IMAGES}[name]
    stages = {
        "kernels": [[3] * axes] * 4,
        "strides": [[1] * axes, *[[2] * axes] * 3],
        "patch_size": [SIDES[axes]] * axes,
    }
    describe = {"channels": 1, "num_classes": 3, "axes": axes, "model_size": "micro", **stages}
    torch.manual_seed(0)
    build = import_module(f"..domains.medical.models.{module}", __package__).build
    return build(describe, mamba=mamba, **options).to(device).train()


def step(model: nn.Module, axes: int, device: str, batch: int = BATCH) -> None:
    """Forward and backward of a batch of noise."""
    found = model(torch.randn(batch, 1, *[SIDES[axes]] * axes, device=device))
    sum(each.square().mean() for each in (found if isinstance(found, list | tuple) else [found])).backward()


def _peak(name: str, axes: int, mamba: bool) -> float:
    """Megabytes of a step in a process of its own, beyond what a step of one sample has left."""
    command = [sys.executable, "-c", PEAK, name, str(axes), str(mamba)]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1]) / 1024
