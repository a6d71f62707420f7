"""Modules that mix tokens, all called as mixer(x, grid=None, state=None, seq_idx=None) -> (y, state)."""

from __future__ import annotations

from ..errors import check_choice
from .attention import Attention, AttentionState
from .mamba import Mamba, MambaState
from .mamba2 import Mamba2, Mamba2State
from .mamba3 import Mamba3, Mamba3State
from .s4d import S4D, S4DState
from .ss2d import SS2D
from .two_inputs import CrossModalMamba, GuidedMamba, NormedMamba

__all__ = [
    "S4D", "SS2D", "Attention", "AttentionState", "CrossModalMamba", "GuidedMamba", "Mamba", "Mamba2", "Mamba2State", "Mamba3",
    "Mamba3State", "MambaState", "NormedMamba", "S4DState", "get",
]  # fmt: skip

MIXERS = {"mamba": Mamba, "mamba2": Mamba2, "mamba3": Mamba3, "s4d": S4D, "attention": Attention}


def get(name: str) -> type:
    """The mixer's class by its name: "mamba", "mamba2", "mamba3", "s4d" (does not select) or "attention"."""
    check_choice("mixer", name, MIXERS)
    return MIXERS[name]
