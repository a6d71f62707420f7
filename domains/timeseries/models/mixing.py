"""Core's Mamba as the models here take it, and what a scan means for a layer that reads in both directions."""

from __future__ import annotations

from ....core.mixers.mamba import Mamba
from ....core.scans import Scan
from ....core.scans import get as get_scan


def as_scan(scan: str | Scan) -> Scan:
    """A scan by its name, or the scan given."""
    return get_scan(scan) if isinstance(scan, str) else scan


def ways(scan: str | Scan) -> list[Scan]:
    """The scan of each block of a layer that reads in both directions: forwards and backwards, or the one scan asked for.

    Layers of two whole blocks, one a direction, are what "bidirectional" means for time series (S-Mamba, Bi-Mamba+); along any
    other scan one block walks all paths.
    """
    scan = as_scan(scan)
    return [get_scan("raster"), get_scan("reverse")] if scan == get_scan("bidirectional") else [scan]


def merge_of(scan: Scan) -> str:
    """How a mixer merges the paths of a scan: by their mean, or by the sum where each token is on one path."""
    return "sum" if scan.disjoint(1) else "mean"


def mamba(d_model: int, scan: str | Scan, d_state: int, d_conv: int, expand: float, backend: str) -> Mamba:
    """core.mixers.mamba.Mamba over (batch, length, d_model) along a scan of one axis; arguments as there."""
    scan = as_scan(scan)
    merge = {} if scan.paths(1) == 1 else {"merge": merge_of(scan)}
    return Mamba(d_model=d_model, d_state=d_state, d_conv=d_conv, expand=expand, scan=scan, backend=backend, **merge)
