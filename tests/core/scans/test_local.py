"""Windowed scans against LocalMamba's offsets, with padding written out."""

import math

import pytest
import torch

from polymamba.core import Mamba, scans
from polymamba.core.errors import UserError
from polymamba.core.scans.cache import OrderCache


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


@pytest.mark.parametrize(("sizes", "window"), [((4, 6), 7), ((1, 2), 3), ((1, 1), 2), ((2, 3, 2), 4), ((3, 3), (4, 9))])
def test_a_window_larger_than_the_grid_is_the_grid(sizes, window, caplog, monkeypatch):
    monkeypatch.setattr("polymamba.core.errors._SAID", set())
    monkeypatch.setattr("polymamba.core.scans.scan.ORDERS", OrderCache(4))
    raster = scans.get("raster").order(sizes).tolist()
    for name in ("local", "local_flip", "local_vim"):
        whole = scans.get(name, window=sizes if len(set(sizes)) > 1 else sizes[0])
        assert scans.get(name, window=window).order(sizes).tolist() == whole.order(sizes).tolist()
    assert scans.get("local", window=window).order(sizes).tolist() == raster
    assert len(caplog.records) == 1
    assert "there it is the raster scan" in caplog.text


def test_a_window_larger_than_one_side_is_cut():
    assert scans.get("local", window=4).order((2, 6)).tolist() == [[0, 1, 2, 3, 6, 7, 8, 9, 4, 5, 10, 11]]


def test_a_window_with_the_wrong_number_of_axes():
    scan = scans.get("local", window=[1, 7, 7])
    assert scan.parameters["window"] == (1, 7, 7)
    assert "2-D" in scan.describe()
    with pytest.raises(UserError, match="number of axes"):
        scan.order((14, 14))


def test_the_stages_of_a_hierarchical_network(caplog, monkeypatch):
    """One scan object on grids that halve, down to a single token: it is said once that windows are cut."""
    monkeypatch.setattr("polymamba.core.errors._SAID", set())
    monkeypatch.setattr("polymamba.core.scans.scan.ORDERS", OrderCache(64))
    for mode, values in (("local", {"window": 7}), ("local_vim", {"window": 7}), ("skip", {"step": 4})):
        scan = scans.get(mode, **values)
        for side in (56, 28, 14, 7, 3, 1):
            mixer = Mamba(d_model=8, scan=scan, axes=2)
            y, _ = mixer(torch.randn(1, side * side, 8), grid=(side, side))
            assert y.shape == (1, side * side, 8)
            assert y.isfinite().all()
    assert len(caplog.records) == 2
