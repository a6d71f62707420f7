"""A whole Mamba mixer: against its own linear layers, and against other packages on the CPU."""

from __future__ import annotations

import os
from functools import partial

import torch

from ..core.mixers.mamba import Mamba
from .timing import compare, row

WIDTH, LENGTH = 768, 1024


def mixer_suite(device: str):
    """Forward and training step of a mixer against the time of its four linear layers alone, on the same sizes."""
    torch.manual_seed(0)
    mixer = Mamba(WIDTH).to(device)
    x = torch.randn(1, LENGTH, WIDTH, device=device, requires_grad=True)
    layers = [mixer.in_proj, mixer.x_proj, mixer.dt_proj, mixer.out_proj]
    inputs = [torch.randn(1, LENGTH, layer.in_features, device=device, requires_grad=True) for layer in layers]

    def train(outputs, wanted):
        torch.autograd.grad(outputs, wanted, [torch.ones_like(out) for out in outputs])

    def linears():
        return [layer(given) for layer, given in zip(layers, inputs, strict=True)]

    weights = [p for layer in layers for p in layer.parameters()]
    with torch.no_grad():
        measured = compare({"mixer": lambda: mixer(x), "its linear layers": linears}, rounds=25)
    case = f"d_model {WIDTH}, length {LENGTH}, batch 1, float32"
    yield row("mixer", f"forward, {case}", measured, "mixer", "its linear layers")
    parameters = list(mixer.parameters())
    measured = compare(
        {
            "mixer": lambda: train([mixer(x)[0]], [x, *parameters]),
            "its linear layers": lambda: train(linears(), [*inputs, *weights]),
        },
        rounds=15,
    )
    yield row("mixer", f"forward+backward, {case}", measured, "mixer", "its linear layers")


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
