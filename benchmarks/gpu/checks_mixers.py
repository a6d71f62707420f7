"""Every mixer on the card against the float64 reference on the CPU: whole, in pieces, packed, along scans, compiled."""

from __future__ import annotations

import copy
import itertools
from functools import partial

import torch
from torch import nn

from ...core import mixers
from ...core.ops.tolerances import RELATIVE_ERROR
from ...domains.nlp.replay import tensors_of
from .cases_models import SMALL
from .checks import Checks, near
from .device import Device, use_kernels

OPTIONS = {"mamba": {}, "mamba2": {"d_state": 32, "headdim": 16}, "mamba3": {"d_state": 32, "headdim": 16}}
OPTIONS |= {"mamba3, rank 4": OPTIONS["mamba3"] | {"is_mimo": True}, "s4d": {}, "attention": {"num_heads": 4}}
SCANS = ("bidirectional", "cross")
DEEP = 10  # times an operator's tolerance: a mixer is several of them, one after the other


def mixer_checks(device: Device) -> Checks:
    for name in OPTIONS:
        yield f"{name} mixer, gradients of everything", partial(whole, name, "raster", device)
        yield f"{name} mixer in pieces", partial(pieces, name, device)
        if name != "s4d":
            yield f"{name} mixer, packed sequences", partial(packed, name, device)
        if name not in ("s4d", "attention"):
            for scan in SCANS:
                yield f"{name} mixer, {scan} scan", partial(whole, name, scan, device)
        if device.kind == "cuda":
            yield f"{name} mixer as it comes, with and without gradients", partial(as_it_comes, name, device)
        if not device.small:
            yield f"{name} mixer, bfloat16 autocast", partial(autocast, name, device)


def compile_checks(device: Device) -> Checks:
    for name in ("mamba", "mamba2", "mamba3") if device.kind == "cuda" else ():
        yield f"{name} mixer under torch.compile", partial(compiled, name, device)


def pair(name: str, device: Device, scan: str = "raster") -> tuple[nn.Module, nn.Module]:
    """The mixer on the device, and in float64 with the reference's operators on the CPU."""
    torch.manual_seed(0)
    kind = name.split(",")[0]
    options = OPTIONS[name] | (SMALL[kind] if device.small else {})
    options |= {} if scan == "raster" else {"scan": scan, "axes": 2}
    mixer = mixers.get(kind)(device.pick(64, 8), **options)
    exact = copy.deepcopy(mixer).double()
    for module in exact.modules():
        if hasattr(module, "backend"):
            module.backend = "reference"
    return use_kernels(mixer).to(device.name), exact


def as_it_comes(name: str, device: Device) -> None:
    """The backend that the mixer picks itself: in training and where no gradient is wanted, where other kernels may be picked."""
    ours, exact = pair(name, device)
    for module in ours.modules():
        if hasattr(module, "backend"):
            module.backend = "auto"
    x = _tokens(device)
    expected, _ = exact(x.double())
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            near(ours(x.to(device.name))[0], expected, DEEP * RELATIVE_ERROR[torch.float32], f"gradients {gradients}")


def _tokens(device: Device, length: int | None = None) -> torch.Tensor:
    length = length or device.pick(48, 4)
    return torch.randn(
        2 if not device.small else 1, length, device.pick(64, 8), generator=torch.Generator().manual_seed(1)
    )


def whole(name: str, scan: str, device: Device) -> None:
    ours, exact = pair(name, device, scan)
    x = _tokens(device)
    grid = None if scan == "raster" else device.pick((6, 8), (2, 2))
    found, expected = _gradients(ours, x.to(device.name), grid), _gradients(exact, x.double(), grid)
    for part, value in expected.items():
        near(found[part], value, DEEP * RELATIVE_ERROR[torch.float32], part)


def _gradients(mixer: nn.Module, x: torch.Tensor, grid=None, call=None) -> dict[str, torch.Tensor]:
    wanted = {"x": x.clone().requires_grad_()} | dict(mixer.named_parameters())
    y, _ = (mixer if call is None else call)(wanted["x"], grid)  # a compiled one has a length, and no truth
    g = torch.randn(y.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64).to(y)
    found = torch.autograd.grad(y, list(wanted.values()), g, allow_unused=True)
    return {"y": y} | {f"d{n}": t for n, t in zip(wanted, found, strict=True) if t is not None}


def pieces(name: str, device: Device) -> None:
    ours, exact = pair(name, device)
    x = _tokens(device)
    with torch.no_grad():
        expected, last = exact(x.double())
        state, parts, cuts = None, [], (0, 1, device.pick(20, 2), x.shape[1] - 1, x.shape[1])
        for begin, end in itertools.pairwise(cuts):
            part, state = ours(x[:, begin:end].to(device.name), None, state)
            parts.append(part)
    near(torch.cat(parts, 1), expected, DEEP * RELATIVE_ERROR[torch.float32], "output")
    for place, (a, b) in enumerate(zip(tensors_of(state), tensors_of(last), strict=True)):
        near(a, b, DEEP * RELATIVE_ERROR[torch.float32], f"state {place}")


def packed(name: str, device: Device) -> None:
    ours, exact = pair(name, device)
    x = _tokens(device)
    sequences = (
        torch.arange(x.shape[1]).div(device.pick(11, 3), rounding_mode="floor").expand(x.shape[0], -1).contiguous()
    )
    with torch.no_grad():
        expected, _ = exact(x.double(), None, None, sequences)
        found, _ = ours(x.to(device.name), None, None, sequences.to(device.name))
    near(found, expected, DEEP * RELATIVE_ERROR[torch.float32], "output")


def autocast(name: str, device: Device) -> None:
    ours, exact = pair(name, device)
    x = _tokens(device)
    with torch.autocast(device.name, torch.bfloat16):
        found, _ = ours(x.to(device.name))
    near(found, exact(x.double())[0], 2 * RELATIVE_ERROR[torch.bfloat16], "output")


def compiled(name: str, device: Device) -> None:
    ours, _ = pair(name, device)
    x = _tokens(device).to(device.name)
    expected, found = _gradients(ours, x), _gradients(ours, x, call=torch.compile(ours))
    for part, value in expected.items():
        near(found[part], value, DEEP * RELATIVE_ERROR[torch.float32], part)
