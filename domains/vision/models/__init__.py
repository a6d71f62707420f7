"""Vision models, a file per paper; importing them registers them with timm."""

from . import vim_timm
from .vim import Vim

__all__ = ["Vim", "vim_timm"]
