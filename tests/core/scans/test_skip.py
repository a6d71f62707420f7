"""The skip scan against EfficientVMamba's four paths and plain loops."""

import itertools

import pytest

from polymamba.core import scans


def visited(path):
    return [token for token in path if token >= 0]


def test_by_hand():
    # 0 1 2
    # 3 4 5
    # 6 7 8
    assert scans.get("skip").order((3, 3)).tolist() == [[0, 2, 6, 8], [3, 5, -1, -1], [1, 7, -1, -1], [4, -1, -1, -1]]


@pytest.mark.parametrize("sizes", [(4, 4), (5, 7), (2, 3), (6, 5), (1, 5), (5, 1), (14, 14)])
def test_es2d_paths(sizes):
    height, width = sizes
    even_rows, odd_rows = range(0, height, 2), range(1, height, 2)
    even_columns, odd_columns = range(0, width, 2), range(1, width, 2)
    expected = [
        [h * width + w for h in even_rows for w in even_columns],
        [h * width + w for w in even_columns for h in odd_rows],
        [h * width + w for h in even_rows for w in odd_columns],
        [h * width + w for w in odd_columns for h in odd_rows],
    ]
    assert [visited(path) for path in scans.get("skip").order(sizes).tolist()] == expected


@pytest.mark.parametrize(
    ("sizes", "step"), [((9, 10), 3), ((5, 4), 4), ((7,), 3), ((5,), 2), ((4, 5, 6), 2), ((3, 7, 4), 3)]
)
def test_each_path_keeps_one_offset(sizes, step):
    paths = [visited(path) for path in scans.get("skip", step=step).order(sizes).tolist()]
    offsets = [tuple(reversed(o)) for o in itertools.product(range(step), repeat=len(sizes))]
    assert len(paths) == len(offsets) == step ** len(sizes)
    strides = [1]
    for size in reversed(sizes[1:]):
        strides.insert(0, strides[0] * size)
    for path, offset in zip(paths, offsets, strict=True):
        places = [tuple(token // stride % size for stride, size in zip(strides, sizes, strict=True)) for token in path]
        assert all(x % step == o for place in places for x, o in zip(place, offset, strict=True))


def test_step_one_is_the_raster():
    assert scans.get("skip", step=1).order((3, 4)).tolist() == [list(range(12))]


def test_a_sequence():
    assert scans.get("skip", step=3).order(7).tolist() == [[0, 3, 6], [1, 4, -1], [2, 5, -1]]


def test_a_step_larger_than_the_grid(caplog, monkeypatch):
    monkeypatch.setattr("polymamba.core.errors._SAID", set())
    for sizes in ((3, 4), (2, 2)):
        order = scans.get("skip", step=5).order(sizes)
        assert order.shape == (25, 1)
        assert sorted(order[order >= 0].tolist()) == list(range(sizes[0] * sizes[1]))
    assert [each.getMessage() for each in caplog.records] == [
        "scan step=5 is larger than a grid of 3×4: there no path has a second token"
    ]
    assert scans.get("skip", step=4).order((3, 4)).shape == (16, 1)
