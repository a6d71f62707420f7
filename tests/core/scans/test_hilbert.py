"""Hilbert curves: neighbours, known curves, and exactly where a diagonal step is unavoidable."""

import itertools
import math

import numpy as np
import pytest

from polymamba.core import scans
from polymamba.core.errors import UserError

RECTANGLES = [*itertools.product(range(1, 12), repeat=2), (31, 55), (100, 63), (15, 12), (2, 77), (64, 9)]
BOXES = [*itertools.product(range(1, 6), repeat=3), (7, 6, 4), (9, 9, 9), (3, 20, 13), (16, 7, 2), (11, 11, 2)]


def jumps(order, sizes):
    """Steps to tokens that are not neighbours, as (rows, columns, ...) distances."""
    places = np.stack(np.unravel_index(order, sizes), axis=-1)
    moves = np.abs(np.diff(places, axis=0))
    return moves[moves.sum(-1) != 1].tolist()


def textbook_hilbert(side):
    """The classic curve by bit manipulation, (row, column) at each distance, for a power of two."""
    places = []
    for distance in range(side * side):
        x = y = 0
        rest, square = distance, 1
        while square < side:
            right = 1 & (rest // 2)
            up = 1 & (rest ^ right)
            if up == 0:
                if right == 1:
                    x, y = square - 1 - x, square - 1 - y
                x, y = y, x
            x, y = x + square * right, y + square * up
            rest, square = rest // 4, square * 2
        places.append((x, y))
    return places


@pytest.mark.parametrize("side", [2, 4, 8, 16, 32])
def test_powers_of_two_give_the_classic_curve(side):
    order = scans.get("hilbert").order((side, side))
    classic = textbook_hilbert(side)
    along_rows = [x * side + y for x, y in classic]
    along_columns = [y * side + x for x, y in classic]
    assert sorted([order[0].tolist(), order[2].tolist()]) == sorted([along_rows, along_columns])


def test_four_by_four_by_hand():
    assert scans.get("hilbert").order((4, 4)).tolist()[::2] == [
        [0, 1, 5, 4, 8, 12, 13, 9, 10, 14, 15, 11, 7, 6, 2, 3],
        [0, 4, 5, 1, 2, 3, 7, 6, 10, 11, 15, 14, 13, 9, 8, 12],
    ]


def test_rectangles_step_to_neighbours():
    for sizes in RECTANGLES:
        order = scans.get("hilbert").order(sizes).numpy()
        odd_and_even = sum(sizes) % 2 == 1 and min(sizes) > 1
        assert (np.sort(order, axis=1) == np.arange(math.prod(sizes))).all()
        assert (order[1::2] == order[::2, ::-1]).all()
        assert order[0, 0] == order[2, 0] == 0
        assert jumps(order[0], sizes) == []
        assert jumps(order[2], sizes) in ([[], [[1, 1]]] if odd_and_even else [[]]), sizes


def test_boxes_step_to_neighbours():
    for sizes in BOXES:
        order = scans.get("hilbert").order(sizes).numpy()
        flat_odd_and_even = min(sizes) == 1 and sum(size % 2 for size in sizes) == 2
        assert (np.sort(order, axis=1) == np.arange(math.prod(sizes))).all()
        assert jumps(order[0], sizes) == []
        found = jumps(order[2], sizes)
        assert found == [] or (flat_odd_and_even and len(found) == 1 and sorted(found[0]) == [0, 1, 1]), sizes


def test_the_transposed_curve_is_another_one():
    for sizes in [(2, 2), (4, 4), (3, 5), (14, 14), (6, 9), (2, 2, 2), (4, 5, 5), (3, 3, 3), (4, 6, 8)]:
        first, _, second, _ = scans.get("hilbert").order(sizes).tolist()
        assert first != second, sizes


@pytest.mark.parametrize("sizes", [(8, 8), (5, 9), (4, 4, 4)])
def test_fewer_paths_are_the_first_ones(sizes):
    four = scans.get("hilbert").order(sizes).tolist()
    assert scans.get("hilbert", paths=2).order(sizes).tolist() == four[:2]
    assert scans.get("hilbert", paths=1).order(sizes).tolist() == four[:1]


def test_neighbours_on_the_curve_are_near_in_the_plane():
    # A raster goes 32 columns in 32 steps; a Hilbert curve never more than the square root of 6 * 32.
    sizes = (64, 64)
    curve = np.stack(np.unravel_index(scans.get("hilbert").order(sizes)[0].numpy(), sizes), axis=-1)
    apart = np.abs(curve[32:] - curve[:-32]).max(-1)
    assert apart.max() <= math.sqrt(6 * 32)


def test_wrong_number_of_paths():
    with pytest.raises(UserError, match="paths") as error:
        scans.get("hilbert", paths=3)
    assert error.value.allowed == "1, 2, 4"
