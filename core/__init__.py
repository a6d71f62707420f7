"""The Mamba core: operators, scans and mixers. `from polymamba.core import Mamba` is the layer.

Needs torch, numba and triton; knows nothing of Lightning, Hydra or any domain.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .mixers import Mamba

__all__ = ["Mamba"]


def __getattr__(name: str):
    # Read when asked for: a mistyped command is answered before torch is imported.
    if name == "Mamba":
        from .mixers import Mamba

        return Mamba
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
