"""Lets the mixers of transformers' models, imported before or after install, run whole on this core; and undoes it."""

from __future__ import annotations

import functools
import sys
from importlib import import_module
from types import ModuleType

# Module -> its mixer, the name of that mixer's forward in hf_mixers.py, and its language model.
MODELS = {
    f"transformers.models.{name}.modeling_{name}": (f"{kind}Mixer", forward, f"{kind}ForCausalLM")
    for name, kind, forward in (
        ("mamba", "Mamba", "mamba_forward"),
        ("falcon_mamba", "FalconMamba", "mamba_forward"),
        ("mamba2", "Mamba2", "mamba2_forward"),
    )
}
_own = {}


def take_over() -> None:
    """Give the models that are imported by now their forwards."""
    for name in MODELS:
        if name in sys.modules:
            take(sys.modules[name])


def take(module: ModuleType) -> None:
    """Give one model's module its forwards, where it has the classes that are known."""
    # Not before it is needed: installing should load nothing heavy.
    ours = import_module(".hf_mixers", __package__)
    mixer, forward, model = MODELS[module.__name__]
    for name, wrap in ((mixer, functools.partial(_mixed, getattr(ours, forward))), (model, ours.headed)):
        kind = getattr(module, name, None)
        if kind is not None and kind not in _own and "forward" in vars(kind):
            _own[kind] = kind.forward
            kind.forward = wrap(kind.forward)


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
