"""Sound: a training step of the models that take recordings apart against Conv-TasNet's, and how fast they answer."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from torchmetrics.functional.audio import scale_invariant_signal_noise_ratio

from ..domains.audio.models import conv_tasnet, dpmamba, semamba, spmamba, tasnet
from ..domains.audio.separation import best
from .timing import in_turn, row

RATE, SECONDS = 8000, 2
BUILDS = {
    "Conv-TasNet": conv_tasnet.build, "Mamba-TasNet": tasnet.build, "DPMamba": dpmamba.build, "SPMamba": spmamba.build,
    "SEMamba": semamba.build,
}  # fmt: skip
SIZES = {"Conv-TasNet": "xs", "Mamba-TasNet": "xs", "DPMamba": "xs", "SPMamba": "small", "SEMamba": "small"}


def training_suite(device: str) -> Iterator[dict]:
    """CPU (on a GPU wall-clock) seconds of a training step on a mixture of two seconds, micro models and small ones."""
    for case, sizes in (("micro", dict.fromkeys(BUILDS, "micro")), ("small", SIZES)):
        models = built(sizes, device)

        def step(model: nn.Module) -> None:
            parts = torch.randn(1, model.sources, SECONDS * RATE, device=device)
            found, _ = best(model(parts.sum(1)), parts, scale_invariant_signal_noise_ratio)
            found.mean().neg().backward()

        measured = in_turn({name: lambda model=model: step(model.train()) for name, model in models.items()}, device)
        for name in models:
            yield row("audio_training", f"{case}, {SECONDS} s, forward+backward", measured, name, "Conv-TasNet")


@torch.inference_mode()
def real_time_suite(device: str) -> Iterator[dict]:
    """Seconds of a CPU (on a GPU of the wall) for two seconds of sound at 8 kHz; `real_time` is their ratio."""
    for case, sizes in (("micro", dict.fromkeys(BUILDS, "micro")), ("small", SIZES)):
        models = built(sizes, device)
        given = torch.randn(1, SECONDS * RATE, device=device)
        measured = in_turn(
            {name: lambda model=model, given=given: model.eval()(given) for name, model in models.items()}, device
        )
        for name in models:
            factor = round(measured.median(name) / SECONDS, 4)
            yield row("audio_real_time", f"{case}, {SECONDS} s", measured, name, "Conv-TasNet", real_time=factor)


def built(sizes: dict[str, str], device: str) -> dict[str, nn.Module]:
    """The models of these sizes, of two voices, or where a model hears one of one."""
    found = {}
    for name, size in sizes.items():
        sources = 1 if name == "SEMamba" else 2
        described = {"sources": sources, "samples": SECONDS * RATE, "rate": RATE}
        found[name] = BUILDS[name](described, size=size).to(device)
    return found
