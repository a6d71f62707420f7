"""Core's mixers as the models here take them, and what a scan means for a layer that reads in both directions."""

from __future__ import annotations

from torch import nn

from ....core.mixers import get as get_mixer
from ....core.scans import Scan
from ....core.scans import get as get_scan


def as_scan(scan: str | Scan) -> Scan:
    """A scan by its name, or the scan given."""
    return get_scan(scan) if isinstance(scan, str) else scan


def of_layer(scan: str | Scan, index: int) -> Scan:
    """The scan of a model's layer: one path of a mode that has one a layer, else the scan itself."""
    return as_scan(scan).layer(index)


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


def mixer(kind: str, d_model: int, scan: str | Scan, backend: str, **options) -> nn.Module:
    """One of core's mixers by its name, over (batch, length, d_model) along a scan of one axis; options as of its class."""
    scan = as_scan(scan)
    merge = {} if scan.paths(1) == 1 else {"merge": merge_of(scan)}
    return get_mixer(kind)(d_model=d_model, scan=scan, backend=backend, **merge, **options)


def mamba(d_model: int, scan: str | Scan, d_state: int, d_conv: int, expand: float, backend: str) -> nn.Module:
    """core.mixers.mamba.Mamba, as `mixer`."""
    return mixer("mamba", d_model, scan, backend, d_state=d_state, d_conv=d_conv, expand=expand)
