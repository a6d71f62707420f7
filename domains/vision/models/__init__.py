"""Vision models, a file per paper; importing them registers them with timm."""

from . import vim_timm, vmamba
from .vim import Vim
from .vmamba import VMamba

__all__ = ["VMamba", "Vim", "vim_timm", "vmamba"]
