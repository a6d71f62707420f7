"""Time series: chaotic systems (nothing to download)."""

from .chaotic import Chaotic

__all__ = ["Chaotic"]
