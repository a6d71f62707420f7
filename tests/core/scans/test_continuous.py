"""Snakes: continuous and zigzag scans, and the directions of PlainMamba."""

import itertools

import numpy as np
import pytest
import torch

from polymamba.core import scans
from polymamba.core.errors import UserError
from polymamba.core.scans import Grid

SIZES = [(4, 4), (5, 4), (4, 5), (3, 3), (5, 7), (1, 4), (4, 1), (1, 1), (2, 9)]
BOXES = [(2, 2, 2), (3, 4, 5), (3, 3, 3), (1, 3, 4), (4, 1, 3), (2, 3, 1)]


def row_snake(height, width):
    return [h * width + (w if h % 2 == 0 else width - 1 - w) for h in range(height) for w in range(width)]


def column_snake(height, width):
    return [(h if w % 2 == 0 else height - 1 - h) * width + w for w in range(width) for h in range(height)]


def steps(order, sizes):
    """City-block distances between consecutive tokens."""
    places = np.stack(np.unravel_index(order, sizes), axis=-1)
    return np.abs(np.diff(places, axis=0)).sum(-1)


def test_three_by_three_by_hand():
    assert scans.get("continuous").order((3, 3)).tolist() == [
        [0, 1, 2, 5, 4, 3, 6, 7, 8],
        [8, 7, 6, 3, 4, 5, 2, 1, 0],
        [0, 3, 6, 7, 4, 1, 2, 5, 8],
        [8, 5, 2, 1, 4, 7, 6, 3, 0],
    ]


@pytest.mark.parametrize("sizes", SIZES)
def test_plain_mamba_paths(sizes):
    rows, columns = row_snake(*sizes), column_snake(*sizes)
    assert scans.get("continuous").order(sizes).tolist() == [rows, rows[::-1], columns, columns[::-1]]


@pytest.mark.parametrize("sizes", SIZES + BOXES)
@pytest.mark.parametrize("name", ["continuous", "zigzag"])
def test_every_step_goes_to_a_neighbour(name, sizes):
    for path in scans.get(name).order(sizes):
        assert (steps(path.numpy(), sizes) == 1).all()


@pytest.mark.parametrize("sizes", [(4, 4), (3, 3), (5, 5)])
def test_zigma_paths(sizes):
    side = sizes[0]
    expected = []
    for row, column, down, right in [
        (0, 0, 1, 1),
        (0, side - 1, 1, -1),
        (side - 1, 0, -1, 1),
        (side - 1, side - 1, -1, -1),
    ]:
        rows = [(row + down * i, column + right * (j if i % 2 == 0 else side - 1 - j)) for i, j in pairs(side, side)]
        columns = [(row + down * (i if j % 2 == 0 else side - 1 - i), column + right * j) for j, i in pairs(side, side)]
        expected += [[h * side + w for h, w in path] for path in (rows, columns)]
    scan = scans.get("zigzag")
    assert scan.order(sizes).tolist() == expected
    assert [scan.layer(layer).order(sizes)[0].tolist() for layer in range(16)] == expected * 2


def pairs(first, second):
    return itertools.product(range(first), range(second))


@pytest.mark.parametrize(("sizes", "paths"), [((4, 4), 8), ((3, 6), 8), ((2, 3, 4), 24)])
def test_zigzag_starts_at_every_corner(sizes, paths):
    order = scans.get("zigzag").order(sizes)
    corners = {np.ravel_multi_index(c, sizes) for c in itertools.product(*((0, size - 1) for size in sizes))}
    starts = order[:, 0].tolist()
    assert len(order) == paths
    assert {start: starts.count(start) for start in corners} == dict.fromkeys(corners, len(sizes))
    assert len({tuple(path) for path in order.tolist()}) == paths


def test_snakes_in_a_box_by_hand():
    # Slice 0: 0 1 / 2 3, slice 1: 4 5 / 6 7.
    assert scans.get("continuous").order((2, 2, 2))[::2].tolist() == [
        [0, 1, 3, 2, 6, 7, 5, 4],
        [0, 2, 3, 1, 5, 7, 6, 4],
        [0, 4, 6, 2, 3, 7, 5, 1],
    ]


def test_directions_by_hand():
    assert scans.directions((2, 3)).tolist() == [
        [0, 1, 1, 4, 2, 2],
        [0, 1, 1, 3, 2, 2],
        [0, 4, 1, 3, 1, 4],
        [0, 3, 2, 4, 2, 3],
    ]


@pytest.mark.parametrize("sizes", SIZES)
def test_directions_say_how_the_path_came(sizes):
    number = {(0, 1): 1, (0, -1): 2, (-1, 0): 3, (1, 0): 4}
    found = scans.directions(sizes)
    assert found.dtype == torch.int32
    for path, ids in zip(scans.get("continuous").order(sizes).tolist(), found.tolist(), strict=True):
        places = [divmod(token, sizes[1]) for token in path]
        moves = [(b[0] - a[0], b[1] - a[1]) for a, b in itertools.pairwise(places)]
        assert ids == [0] + [number[move] for move in moves]


def test_directions_of_nothing_and_of_other_grids():
    assert scans.directions((0, 3)).shape == (4, 0)
    assert scans.directions((3, 4)) is scans.directions(Grid((3, 4)))
    for grid in ((4,), (2, 2, 2), Grid((2, 2), (0,))):
        with pytest.raises(UserError, match="2-D grid without class tokens"):
            scans.directions(grid)
