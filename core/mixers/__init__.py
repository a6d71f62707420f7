"""Modules that mix tokens, all called as mixer(x, grid=None, state=None, seq_idx=None) -> (y, state)."""

from .mamba import Mamba, MambaState

__all__ = ["Mamba", "MambaState"]
