"""State space duality and the trapezoidal scan (Mamba-2, Mamba-3) against plain loops, their mixers against linear layers."""

from __future__ import annotations

from functools import partial

import torch
from torch.nn import functional as F

from ..core import mixers
from ..core.ops.state_space_duality import state_space_duality
from ..core.ops.trapezoidal_scan import trapezoidal_scan
from .mixer import against_linear_layers
from .timing import compare, row

LENGTH, WIDTH, HEADS, HEADDIM, STATES = 1024, 768, 24, 64, 128
SIZES = ((WIDTH, 1, LENGTH), (192, 4, 256))  # of the mixers: width, batch, length
MIXERS = {"mamba2": {}, "mamba3": {}, "mamba3, rank 4": {"is_mimo": True}}


def heads_suite(device: str):
    """Kernels against the loop, then whole mixers against the time of their own linear layers."""
    torch.manual_seed(0)
    case = f"length {LENGTH}, {HEADS} heads of {HEADDIM}, {STATES} states"
    for name, call, given in (
        ("state space duality", _duality, _duality_arguments(device)),
        ("trapezoidal scan", _trapezoid, _trapezoid_arguments(device)),
    ):
        for what, run in (("forward", _forward), ("forward+backward", _train)):
            functions = {backend: partial(run, call, given, backend) for backend in ("reference", "auto")}
            functions["auto"]()
            measured = compare({"loop": functions["reference"], "kernel": functions["auto"]}, rounds=3, warmup=0)
            yield row("heads", f"{what}, {name}, {case}", measured, "loop", "kernel")
    for name, options in MIXERS.items():
        for width, batch, length in SIZES:
            mixer = mixers.get(name.split(",")[0])(width, **options).to(device)
            yield from against_linear_layers("heads", f"{name}, d_model {width}", mixer, device, batch, (length,))


def _duality_arguments(device: str) -> dict:
    given = {"x": torch.randn(1, LENGTH, HEADS, HEADDIM), "dt": F.softplus(torch.randn(1, LENGTH, HEADS) - 3)}
    given |= {
        "A": -torch.rand(HEADS) * 8,
        "B": torch.randn(1, LENGTH, 1, STATES),
        "C": torch.randn(1, LENGTH, 1, STATES),
    }
    return {name: t.to(device).requires_grad_() for name, t in given.items()}


def _trapezoid_arguments(device: str) -> dict:
    given = {"x": torch.randn(1, LENGTH, 1, HEADS, HEADDIM), "log_decay": -torch.rand(1, LENGTH, HEADS)}
    given |= {"dt": torch.rand(1, LENGTH, HEADS), "trapezoid": torch.rand(1, LENGTH, HEADS)}
    given |= {name: torch.randn(1, LENGTH, 1, HEADS, STATES) for name in "BC"}
    return {name: t.to(device).requires_grad_() for name, t in given.items()}


def _duality(given: dict, backend: str):
    return state_space_duality(**given, backend=backend)


def _trapezoid(given: dict, backend: str):
    return trapezoidal_scan(**given, backend=backend)


def _forward(call, given: dict, backend: str):
    with torch.no_grad():
        return call(given, backend)


def _train(call, given: dict, backend: str):
    out = call(given, backend)
    return torch.autograd.grad(out, list(given.values()), torch.ones_like(out))
