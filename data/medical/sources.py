"""Where the medical data sets come from."""

from __future__ import annotations

from ..sources import Source

SYNTHETIC = Source(
    title="Balls in noise, of MONAI's generator",
    homepage="https://docs.monai.io/en/stable/data.html",
    citation="M. J. Cardoso et al.: MONAI, arXiv:2211.02701, 2022",
    licence="Apache 2.0 (the generator)",
    protocol="each part's volumes are made from data.data_seed; no volume is in two parts",
)
