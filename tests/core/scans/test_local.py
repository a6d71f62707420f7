"""Windowed scans against LocalMamba's offsets, with padding written out."""

import math

import pytest

from polymamba.core import scans
from polymamba.core.errors import UserError


def padded_windows(sizes, window):
    """Windows of the zero-padded grid, visited in LocalMamba's order, without the padding."""
    height, width = sizes
    rows, columns = math.ceil(height / window) * window, math.ceil(width / window) * window
    visit = [None] * (rows * columns)
    for i in range(rows):
        for j in range(columns):
            at = (
                ((columns // window) * (i // window) + j // window) * window * window
                + (i % window) * window
                + j % window
            )
            visit[at] = i * width + j if i < height and j < width else None
    return [token for token in visit if token is not None]


def test_by_hand():
    #  0  1  2 |  3  4
    #  5  6  7 |  8  9
    # 10 11 12 | 13 14
    assert scans.get("local", window=2).order((3, 5)).tolist() == [[0, 1, 5, 6, 2, 3, 7, 8, 4, 9, 10, 11, 12, 13, 14]]
    assert scans.get("local", window=3).order((3, 5)).tolist() == [[0, 1, 2, 5, 6, 7, 10, 11, 12, 3, 4, 8, 9, 13, 14]]


@pytest.mark.parametrize(
    ("sizes", "window"),
    [
        ((4, 4), 2),
        ((6, 4), 2),
        ((14, 14), 7),
        ((14, 14), 2),
        ((7, 9), 4),
        ((5, 3), 4),
        ((1, 9), 2),
        ((9, 1), 4),
        ((8, 8), 8),
    ],
)
def test_local_mamba_order(sizes, window):
    expected = padded_windows(sizes, window)
    assert scans.get("local", window=window).order(sizes).tolist() == [expected]
    assert scans.get("local_flip", window=window).order(sizes).tolist() == [expected[::-1]]
    assert scans.get("local", window=window, flip=True).order(sizes).tolist() == [expected[::-1]]
    raster = list(range(math.prod(sizes)))
    assert scans.get("local_vim", window=window).order(sizes).tolist() == [
        raster,
        raster[::-1],
        expected,
        expected[::-1],
    ]


def test_windows_of_one_token_are_the_raster():
    assert scans.get("local", window=1).order((3, 4)).tolist() == [list(range(12))]


def test_cubes_and_windows_within_frames():
    sizes = (3, 4, 5)
    for window in (2, (1, 2, 2), (2, 3, 4)):
        sides = (window,) * 3 if isinstance(window, int) else window
        places = [(f, h, w) for f in range(3) for h in range(4) for w in range(5)]
        key = lambda p, sides=sides: ([x // s for x, s in zip(p, sides, strict=True)], p)  # noqa: E731
        expected = [(f * 4 + h) * 5 + w for f, h, w in sorted(places, key=key)]
        assert scans.get("local", window=window).order(sizes).tolist() == [expected]


@pytest.mark.parametrize(("sizes", "window", "do"), [((4, 6), 7, "scan.window=3"), ((1, 2), 3, "scan=raster")])
def test_a_window_larger_than_the_grid(sizes, window, do):
    with pytest.raises(UserError, match="larger than the whole grid") as error:
        scans.get("local", window=window).order(sizes)
    assert f"window={window}" in error.value.given
    assert error.value.allowed == f"windows of 1 to {max(sizes)}"
    assert do in error.value.do


def test_a_window_larger_than_one_side_is_cut():
    assert scans.get("local", window=4).order((2, 6)).tolist() == [[0, 1, 2, 3, 6, 7, 8, 9, 4, 5, 10, 11]]


def test_a_window_with_the_wrong_number_of_axes():
    scan = scans.get("local", window=[1, 7, 7])
    assert scan.parameters["window"] == (1, 7, 7)
    assert "2-D" in scan.describe()
    with pytest.raises(UserError, match="number of axes"):
        scan.order((14, 14))
