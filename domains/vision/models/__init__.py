"""Vision models, a file per paper; importing them registers them with timm."""

from . import vim_timm
from .efficientvmamba import EfficientVMamba
from .localvim import LocalVim
from .localvmamba import LocalVMamba
from .mamband import MambaND
from .mambavision import MambaVision
from .plainmamba import PlainMamba
from .videomamba import VideoMamba
from .vim import Vim
from .vmamba import VMamba

__all__ = [
    "EfficientVMamba", "LocalVMamba", "LocalVim", "MambaND", "MambaVision", "PlainMamba", "VMamba", "VideoMamba", "Vim", "vim_timm",
]  # fmt: skip
