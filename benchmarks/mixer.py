"""A whole Mamba mixer: against its own linear layers, and against other packages on the CPU."""

from __future__ import annotations

import math
import os
from functools import partial

import torch
from torch import nn

from ..core.mixers.mamba import Mamba
from .timing import compare, row

WIDTH, LENGTH = 768, 1024


# d_model, scan, axes, batch, grid or length.
SIZES = (
    (64, "raster", 1, 8, (256,)),
    (64, "bidirectional", 1, 8, (256,)),
    (192, "raster", 1, 1, (197,)),
    (192, "bidirectional", 1, 1, (197,)),
    (192, "cross", 2, 1, (28, 28)),
    (WIDTH, "raster", 1, 1, (LENGTH,)),
)


def mixer_suite(device: str):
    """Forward and training step of a mixer against the time of its linear layers alone, on the same sizes."""
    torch.manual_seed(0)
    for width, scan, axes, batch, grid in SIZES:
        mixer = Mamba(width, scan=scan, axes=axes).to(device)
        yield from against_linear_layers("mixer", f"{scan}, d_model {width}", mixer, device, batch, grid)


def against_linear_layers(suite: str, name: str, mixer: nn.Module, device: str, batch: int, grid: tuple[int, ...]):
    """A mixer's forward and training step against those of its linear layers alone, on the same tokens."""
    layers = [module for module in mixer.modules() if isinstance(module, nn.Linear)]
    tokens = (batch, math.prod(grid))
    x = torch.randn(*tokens, mixer.d_model, device=device, requires_grad=True)
    inputs = [torch.randn(*tokens, layer.in_features, device=device, requires_grad=True) for layer in layers]
    weights = [p for layer in layers for p in layer.parameters()]

    def mix():
        return [mixer(x, grid=grid)[0]]

    def linears():
        return [layer(given) for layer, given in zip(layers, inputs, strict=True)]

    def train(call, wanted):
        outputs = call()
        torch.autograd.grad(outputs, wanted, [torch.ones_like(out) for out in outputs])

    size = "x".join(map(str, grid))
    case, sides = f"{name}, {batch} x {size} tokens, float32", ("mixer", "its linear layers")
    with torch.no_grad():
        measured = compare(dict(zip(sides, (mix, linears), strict=True)), rounds=25)
    yield row(suite, f"forward, {case}", measured, *sides)
    mine, theirs = [x, *mixer.parameters()], [*inputs, *weights]
    calls = (partial(train, mix, mine), partial(train, linears, theirs))
    measured = compare(dict(zip(sides, calls, strict=True)), rounds=15)
    yield row(suite, f"forward+backward, {case}", measured, *sides)


def others_suite(device: str):
    """The same layer in `transformers` and `mambapy`; they need the extra: pip install polymamba[bench]."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    for name, make in (("transformers", _transformers_mixer), ("mambapy", _mambapy_block)):
        try:
            other = make().to(device)
        except ImportError as reason:
            print(f"{name} left out: {reason}. Type: pip install 'polymamba[bench]'")
            continue
        mixer = Mamba(WIDTH).to(device)
        for length, what in ((1024, "forward"), (256, "forward+backward")):
            x = torch.randn(1, length, WIDTH, device=device)

            def run(layer, x=x, what=what):
                with torch.set_grad_enabled(what != "forward"):
                    out = layer(x)
                    out = out[0] if isinstance(out, tuple) else out
                    if what != "forward":
                        torch.autograd.grad(out.sum(), list(layer.parameters()))

            measured = compare({name: partial(run, other), "mixer": partial(run, mixer)}, rounds=3)
            yield row("others", f"{what}, d_model {WIDTH}, length {length}, against {name}", measured, name, "mixer")


def _transformers_mixer():
    from transformers.models.mamba.configuration_mamba import MambaConfig
    from transformers.models.mamba.modeling_mamba import MambaMixer

    return MambaMixer(
        MambaConfig(hidden_size=WIDTH, state_size=16, num_hidden_layers=1, use_mambapy=False), layer_idx=0
    )


def _mambapy_block():
    from mambapy.mamba import MambaBlock, MambaConfig

    return MambaBlock(MambaConfig(d_model=WIDTH, n_layers=1))
