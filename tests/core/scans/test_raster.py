"""Rasters, cross scans, and scans of videos and volumes against orders written out by hand and plain loops."""

import itertools

import numpy as np
import pytest

from polymamba.core import scans

SIZES = [(2, 3), (3, 2), (3, 3), (5, 4), (1, 6), (6, 1), (7, 9)]
BOXES = [(2, 2, 3), (3, 4, 5), (1, 3, 2), (4, 1, 3), (2, 5, 1)]


def rows(height, width):
    return [h * width + w for h in range(height) for w in range(width)]


def columns(height, width):
    return [h * width + w for w in range(width) for h in range(height)]


def box(sizes, loops):
    """Nested loops over the axes named by `loops`, the last one innermost."""
    frames, height, width = sizes
    order = []
    for place in itertools.product(*(range(sizes["fhw".index(axis)]) for axis in loops)):
        at = dict(zip(loops, place, strict=True))
        order.append((at["f"] * height + at["h"]) * width + at["w"])
    assert len(order) == frames * height * width
    return order


def orders(name, sizes, **parameters):
    return scans.get(name, **parameters).order(sizes).tolist()


def test_two_by_three_by_hand():
    assert orders("raster", (2, 3)) == [[0, 1, 2, 3, 4, 5]]
    assert orders("reverse", (2, 3)) == [[5, 4, 3, 2, 1, 0]]
    assert orders("bidirectional", (2, 3)) == [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0]]
    assert orders("column", (2, 3)) == [[0, 3, 1, 4, 2, 5]]
    assert orders("cross", (2, 3)) == [[0, 1, 2, 3, 4, 5], [0, 3, 1, 4, 2, 5], [5, 4, 3, 2, 1, 0], [5, 2, 4, 1, 3, 0]]
    assert orders("cross_rot90", (2, 3)) == [
        [0, 1, 2, 3, 4, 5],
        [2, 5, 1, 4, 0, 3],
        [5, 4, 3, 2, 1, 0],
        [3, 0, 4, 1, 5, 2],
    ]


@pytest.mark.parametrize("sizes", SIZES)
def test_the_cross_family(sizes):
    raster, column = rows(*sizes), columns(*sizes)
    assert orders("cross", sizes) == [raster, column, raster[::-1], column[::-1]]
    assert orders("cross_uni", sizes) == [raster] * 4
    assert orders("cross_bidi", sizes) == [raster, raster, raster[::-1], raster[::-1]]
    grid = np.array(raster).reshape(sizes)
    assert orders("cross_rot90", sizes) == [np.rot90(grid, turns).ravel().tolist() for turns in range(4)]


@pytest.mark.parametrize("sizes", SIZES)
def test_mamba_nd_cycles_through_directions(sizes):
    raster, column = rows(*sizes), columns(*sizes)
    cycle = [raster, raster[::-1], column, column[::-1]]
    scan = scans.get("mamba_nd")
    assert [scan.layer(layer).order(sizes)[0].tolist() for layer in range(8)] == cycle * 2


@pytest.mark.parametrize("sizes", BOXES)
def test_volumes(sizes):
    fhw, fwh, whf, hwf = (box(sizes, loops) for loops in ("fhw", "fwh", "whf", "hwf"))
    assert orders("cross", sizes) == [fhw, fwh, whf, fhw[::-1], fwh[::-1], whf[::-1]]
    assert orders("mamba_nd", sizes) == [fhw, fhw[::-1], fwh, fwh[::-1], whf, whf[::-1]]
    assert orders("column", sizes) == [fwh]
    assert orders("spatial_first", sizes) == [fhw, fhw[::-1]]
    assert orders("temporal_first", sizes) == [hwf, hwf[::-1]]
    assert orders("spatiotemporal", sizes) == [fhw, fhw[::-1], hwf, hwf[::-1]]
    assert orders("slices", sizes) == [fhw, fhw[::-1], hwf]


@pytest.mark.parametrize("sizes", BOXES)
def test_slices_steps_through_the_slices_as_published(sizes):
    length, count = int(np.prod(sizes)), sizes[0]
    expected = [s * (length // count) + place for place in range(length // count) for s in range(count)]
    assert orders("slices", sizes)[2] == expected


def test_diagonals_by_hand():
    # 0 1 2
    # 3 4 5
    falling, rising = [3, 0, 4, 1, 5, 2], [0, 1, 3, 2, 4, 5]
    assert orders("diagonal", (2, 3)) == [falling, rising, falling[::-1], rising[::-1]]


@pytest.mark.parametrize("sizes", SIZES)
def test_diagonals(sizes):
    height, width = sizes
    falling = [h * width + d + h for d in range(1 - height, width) for h in range(height) if 0 <= d + h < width]
    rising = [h * width + d - h for d in range(height + width - 1) for h in range(height) if 0 <= d - h < width]
    assert orders("diagonal", sizes) == [falling, rising, falling[::-1], rising[::-1]]
