"""Vision models, a file per paper; importing them registers them with timm."""

from . import vim_timm
from .efficientvmamba import EfficientVMamba
from .groupmamba import GroupMamba
from .localvim import LocalVim
from .localvim_token import LocalVimToken
from .localvmamba import LocalVMamba
from .mamband import MambaND
from .mambavision import MambaVision
from .msvmamba import MSVMamba
from .plainmamba import PlainMamba
from .spatialmamba import SpatialMamba
from .videomamba import VideoMamba
from .vim import Vim
from .vmamba import VMamba
from .vssd import VSSD

__all__ = [
    "VSSD", "EfficientVMamba", "GroupMamba", "LocalVMamba", "LocalVim", "LocalVimToken", "MSVMamba", "MambaND", "MambaVision",
    "PlainMamba",
    "SpatialMamba", "VMamba", "VideoMamba", "Vim", "vim_timm",
]  # fmt: skip
