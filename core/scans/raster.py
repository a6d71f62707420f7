"""Scans made of nested loops over the axes: raster, cross, and the orders of videos and volumes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .path import Path, axis_orders, nested, numbered, with_reverses


def raster(sizes: Sequence[int]) -> list[Path]:
    """Row by row, from the first token to the last."""
    return [nested(sizes, range(len(sizes)))]


def reverse(sizes: Sequence[int]) -> list[Path]:
    """The raster order backwards."""
    return [path.reversed() for path in raster(sizes)]


def bidirectional(sizes: Sequence[int]) -> list[Path]:
    """Raster, and the same backwards."""
    return with_reverses(raster(sizes))


def column(sizes: Sequence[int]) -> list[Path]:
    """Column by column; in a volume, slice by slice and column by column in each."""
    return [nested(sizes, axis_orders(len(sizes))[1])]


def column_reverse(sizes: Sequence[int]) -> list[Path]:
    """The column order backwards."""
    return [path.reversed() for path in column(sizes)]


def cross(sizes: Sequence[int]) -> list[Path]:
    """Raster, column-major, then the reverse of each; in 3-D one path with each axis fastest, then their reverses."""
    forward = [nested(sizes, axes) for axes in axis_orders(len(sizes))]
    return forward + [path.reversed() for path in forward]


def cross_uni(sizes: Sequence[int]) -> list[Path]:
    """Raster four times, each with its own parameters (VMamba's scan 1)."""
    return raster(sizes) * 4


def cross_bidi(sizes: Sequence[int]) -> list[Path]:
    """Raster twice, then its reverse twice (VMamba's scan 2)."""
    return raster(sizes) * 2 + reverse(sizes) * 2


def cross_rot90(sizes: Sequence[int]) -> list[Path]:
    """The raster order of the grid turned by 0, 90, 180 and 270 degrees (VMamba's scan 3).

    Half a turn reverses a raster order, so the last two paths are the first two backwards.
    """
    turned = [Path(np.rot90(numbered(sizes), k).ravel()) for k in (0, 1)]
    return turned + [path.reversed() for path in turned]


def mamba_nd(sizes: Sequence[int]) -> list[Path]:
    """One path a layer: each axis fastest in turn, forward in one layer and backward in the next."""
    return with_reverses([nested(sizes, axes) for axes in axis_orders(len(sizes))])


def spatial_first(sizes: Sequence[int]) -> list[Path]:
    """Frame after frame, and the same backwards; sizes are (frames, height, width)."""
    return bidirectional(sizes)


def temporal_first(sizes: Sequence[int]) -> list[Path]:
    """Through all frames at one place, then the next place, and the same backwards."""
    return with_reverses([nested(sizes, (1, 2, 0))])


def spatiotemporal(sizes: Sequence[int]) -> list[Path]:
    """Spatial-first and temporal-first, each both ways."""
    return spatial_first(sizes) + temporal_first(sizes)


def slices(sizes: Sequence[int]) -> list[Path]:
    """Raster, its reverse, and from slice to slice at each place; sizes are (slices, height, width)."""
    return [*bidirectional(sizes), nested(sizes, (1, 2, 0))]
