"""Modules that mix tokens, all called as mixer(x, grid=None, state=None, seq_idx=None) -> (y, state)."""

from __future__ import annotations

from importlib import import_module

from ..errors import UserError, closest
from .attention import Attention, AttentionState
from .mamba import Mamba, MambaState

__all__ = ["Attention", "AttentionState", "Mamba", "MambaState", "get"]

MIXERS = {
    "mamba": ("mamba", "Mamba"),
    "mamba2": ("mamba2", "Mamba2"),
    "mamba3": ("mamba3", "Mamba3"),
    "s4d": ("s4d", "S4D"),
    "attention": ("attention", "Attention"),
}


def get(name: str) -> type:
    """The mixer's class by its name: "mamba", "mamba2", "mamba3", "s4d" (does not select) or "attention"."""
    if name not in MIXERS:
        near = closest(name, MIXERS)
        raise UserError(f"unknown mixer {name!r}", given=name, allowed=MIXERS, do=f"mixer={near}" if near else None)
    module, kind = MIXERS[name]
    return getattr(import_module(f".{module}", __package__), kind)
