"""Between maps and tokens, and the mixer of a layer that sits in a convolutional network."""

from __future__ import annotations

from torch import Tensor, nn

from ....core.mixers.mamba import Mamba
from ....core.scans import Scan
from ....core.scans import get as get_scan


def as_scan(scan: str | Scan) -> Scan:
    """A scan by its name, or the scan given."""
    return get_scan(scan) if isinstance(scan, str) else scan


def mamba(d_model: int, scan: str | Scan, axes: int, index: int = 0, **options) -> Mamba:
    """The Mamba of a network's layer of that index along a scan over `axes` axes.

    Paths are averaged, so that a layer says as much with one as with many, or summed where each token is on one path alone.
    """
    scan = as_scan(scan).layer(index)
    several = scan.paths(axes) > 1 and not scan.disjoint(axes)
    return Mamba(d_model, **{"scan": scan, "axes": axes, "merge": "mean" if several else "sum", **options})


def to_tokens(x: Tensor) -> Tensor:
    """(batch, channels, *sizes) -> (batch, length, channels), in raster order."""
    return x.flatten(2).mT


def to_map(tokens: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """(batch, length, channels) -> (batch, channels, *sizes)."""
    return tokens.mT.unflatten(2, sizes)


def mixed(mixer: nn.Module, tokens: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """What a mixer makes of the tokens of a map of these sizes, (batch, length, channels)."""
    return mixer(tokens.contiguous(), tuple(sizes))[0]
