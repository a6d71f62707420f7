"""Lets the mixers of transformers' models, imported before or after install, run whole on this core; and undoes it."""

from __future__ import annotations

import functools
import sys
from types import ModuleType

from torch import nn

from ..core.ops.linear import linear
from .hf_mixers import mamba2_forward, mamba_forward

# Module -> its mixer, that mixer's forward here, and its language model.
MODELS = {
    f"transformers.models.{name}.modeling_{name}": (f"{kind}Mixer", forward, f"{kind}ForCausalLM")
    for name, kind, forward in (
        ("mamba", "Mamba", mamba_forward),
        ("falcon_mamba", "FalconMamba", mamba_forward),
        ("mamba2", "Mamba2", mamba2_forward),
    )
}
_own = {}


def take_over() -> None:
    """Give the models that are imported by now their forwards."""
    for name in MODELS:
        if name in sys.modules:
            take(sys.modules[name])


def take(module: ModuleType) -> None:
    """Give one model's module its forwards, where its classes are those that are known."""
    mixer, forward, model = MODELS[module.__name__]
    for name, make in ((mixer, functools.partial(_mixed, forward)), (model, _headed)):
        kind = getattr(module, name, None)
        if kind is not None and kind not in _own and "forward" in vars(kind):
            _own[kind] = kind.forward
            kind.forward = make(kind.forward)


def give_back() -> None:
    """Every model has its own code again."""
    while _own:
        kind, forward = _own.popitem()
        kind.forward = forward


def _mixed(forward, own):
    @functools.wraps(own)
    def mix(self, *arguments, **named):
        found = forward(self, *arguments, **named)
        return own(self, *arguments, **named) if found is None else found

    return mix


def _headed(own):
    """The language model's forward, during which its head multiplies the few rows of decoding by this core's product."""

    @functools.wraps(own)
    def run(self, *arguments, **named):
        head = getattr(self, "lm_head", None)
        if type(head) is not nn.Linear or "forward" in vars(head):
            return own(self, *arguments, **named)
        head.forward = lambda x: linear(x, head.weight, head.bias)
        try:
            return own(self, *arguments, **named)
        finally:
            vars(head).pop("forward", None)

    return run
