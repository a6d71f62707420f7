"""Vision Mamba against a vision transformer of its size (Vim-tiny, DeiT-tiny) over the side of the image; where they cross."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import torch
from torch import nn

from .profile import parts_of
from .timing import compare, row

SIDES = (224, 384, 512, 768, 1024)
VIM, DEIT = "Vim-tiny", "DeiT-tiny"


def pixels_suite(device: str):
    """Forward and training step of one image, 1000 classes; the rows' `crossing` is the side at which both take as long."""
    for what in ("forward", "forward+backward"):
        entries = []
        for side in SIDES:
            image = torch.randn(1, 3, side, side, device=device)
            calls = {name: _call(model.to(device), image, what) for name, model in _models(side).items()}
            measured = compare(calls, rounds=9 if side < 768 else 3)
            entries.append(
                row("pixels", f"{what}, {side} x {side} pixels, patches of 16", measured, VIM, DEIT, side=side)
            )
        side = crossing([entry["side"] for entry in entries], [entry["ratio"] for entry in entries])
        yield from (entry | {"crossing": side} for entry in entries)


def parts_suite(device: str):
    """Where Vim-tiny's time at 224 pixels goes; `alone`: its ratio to DeiT-tiny if it had products and kernels alone."""
    if device != "cpu":
        return
    image, models = torch.randn(1, 3, SIDES[0], SIDES[0]), _models(SIDES[0])
    for what in ("forward", "forward+backward"):
        calls = {name: _call(model, image, what) for name, model in models.items()}
        measured, spent = compare(calls, rounds=15), parts_of(calls[VIM], models[VIM])
        share = (spent["kernels"] + spent["linear_layers"] + spent["products"]) / sum(spent.values())
        entry = row("pixels_parts", f"{what}, {SIDES[0]} x {SIDES[0]} pixels, patches of 16", measured, VIM, DEIT)
        told = {f"{part}_ms": round(1e3 * seconds, 3) for part, seconds in spent.items()}
        yield entry | told | {"alone": round(share * entry["ratio"], 3)}


def crossing(sides: list[int], ratios: list[float]) -> float | None:
    """The side at which the ratio falls to 1, between those measured along a straight line of their logarithms; None: nowhere."""
    for (a, high), (b, low) in itertools.pairwise(zip(sides, ratios, strict=True)):
        if high >= 1 > low:
            share = math.log(high) / math.log(high / low)
            return round(a * (b / a) ** share, 1)
    return None


def draw(rows: list[dict], file: Path) -> None:
    """The ratio over the side of the image."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for what in ("forward", "forward+backward"):
        mine = [entry for entry in rows if entry["case"].startswith(f"{what},")]
        crossed = mine[0]["crossing"] if mine else None
        label = what if crossed is None else f"{what}, equal at {crossed:.0f} pixels"
        axes.plot([entry["side"] for entry in mine], [entry["ratio"] for entry in mine], marker="o", label=label)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set(xscale="log", yscale="log", xlabel="side of the image, pixels", ylabel=f"time of {VIM} / time of {DEIT}")
    axes.set_xticks(SIDES, [str(side) for side in SIDES])
    axes.minorticks_off()
    axes.legend(frameon=False)
    figure.savefig(file, dpi=130)


def _models(side: int) -> dict[str, nn.Module]:
    import timm

    from ..domains.vision.models.vim import SIZES, Vim

    return {VIM: Vim(**SIZES["tiny"], img_size=side), DEIT: timm.create_model("deit_tiny_patch16_224", img_size=side)}


def _call(model: nn.Module, image: torch.Tensor, what: str):
    model.train()
    weights = list(model.parameters())

    def run():
        with torch.set_grad_enabled(what != "forward"):
            out = model(image)
            if what != "forward":
                torch.autograd.grad(out.sum(), weights, allow_unused=True)

    return run
