"""Modules that mix tokens, all called as mixer(x, grid=None, state=None, seq_idx=None) -> (y, state)."""

from __future__ import annotations

from importlib import import_module

from torch import nn

from ..errors import UserError, closest
from .mamba import Mamba, MambaState

__all__ = ["Mamba", "MambaState", "get"]

MIXERS = {
    "mamba": ("mamba", "Mamba"),
    "mamba2": ("mamba2", "Mamba2"),
    "mamba3": ("mamba3", "Mamba3"),
    "attention": ("attention", "Attention"),
}


def get(name: str) -> type[nn.Module]:
    """The class of a mixer by its name in configs, imported when asked for.

    Raises:
        UserError: an unknown name.
    """
    if name not in MIXERS:
        near = closest(name, MIXERS)
        raise UserError(f"unknown mixer {name!r}", given=name, allowed=MIXERS, do=f"mixer={near}" if near else None)
    module, found = MIXERS[name]
    return getattr(import_module(f".{module}", __package__), found)
