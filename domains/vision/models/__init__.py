"""Vision models, a file per paper; importing them registers them with timm."""

from . import vim_timm
from .efficientvmamba import EfficientVMamba
from .localvim import LocalVim
from .localvmamba import LocalVMamba
from .plainmamba import PlainMamba
from .vim import Vim
from .vmamba import VMamba

__all__ = ["EfficientVMamba", "LocalVMamba", "LocalVim", "PlainMamba", "VMamba", "Vim", "vim_timm"]
