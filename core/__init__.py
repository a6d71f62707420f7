"""The Mamba core: operators, scans and mixers. `from polymamba.core import Mamba` (Mamba2, Mamba3, Attention) is the layer.

Needs torch, numba and triton; knows nothing of Lightning, Hydra or any domain.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .mixers import Attention, Mamba, Mamba2, Mamba3

__all__ = ["Attention", "Mamba", "Mamba2", "Mamba3"]


def __getattr__(name: str):
    # Read when asked for: a mistyped command is answered before torch is imported.
    if name in __all__:
        from . import mixers

        return getattr(mixers, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
