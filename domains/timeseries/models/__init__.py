"""Forecasting models, a file per paper, all called as model(x, marks=None)."""

from .bimamba_plus import BiMambaPlus
from .cmamba import CMamba
from .einfft import EinFFT
from .itransformer import ITransformer
from .linear import DLinear, NLinear
from .mamba_forecaster import MambaForecaster
from .mambaformer import Mambaformer
from .mambats import MambaTS
from .naive import SeasonalNaive
from .patchtst import PatchTST
from .smamba import SMamba
from .timemachine import TimeMachine

__all__ = [
    "BiMambaPlus", "CMamba", "DLinear", "EinFFT", "ITransformer", "MambaForecaster", "MambaTS", "Mambaformer", "NLinear",
    "PatchTST", "SMamba", "SeasonalNaive", "TimeMachine",
]  # fmt: skip
