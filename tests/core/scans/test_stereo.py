"""Scans of several scales and inputs against orders by hand and by loops."""

import itertools
import math

import pytest

from polymamba.core import scans
from polymamba.core.errors import UserError
from polymamba.core.scans.coarse import coarse_paths


def orders(name, sizes, **parameters):
    return scans.get(name, **parameters).order(sizes).tolist()


def test_hierarchical_by_hand():
    found = orders("hierarchical", (2, 4), windows=(2,))
    windows = [0, 1, 4, 5, 2, 3, 6, 7]
    assert found == [windows, windows[::-1], list(range(8)), list(range(8))[::-1]]
    assert scans.get("hierarchical").paths(2) == scans.get("hierarchical").paths(3) == 6


def test_dilated_by_hand():
    found = orders("dilated", (2, 4))
    apart = [0, 2, 1, 3, 4, 6, 5, 7]
    assert found == [list(range(8)), list(range(8))[::-1], apart, apart[::-1]]
    assert orders("dilated", (5,), steps=(2,))[0] == [0, 2, 4, 1, 3]


@pytest.mark.parametrize("sizes", [(2, 3), (3, 1), (2, 3, 4), (3, 2, 5), (1, 4, 4)])
def test_interleaved_by_loops(sizes):
    """All inputs at a place, then the next place: along rows and, in an image, along columns."""
    inputs, *grid = sizes
    tokens = len(list(itertools.product(*map(range, grid))))
    places = [list(range(tokens))]
    if len(grid) == 2:
        places.append([h * grid[1] + w for w in range(grid[1]) for h in range(grid[0])])
    expected = []
    for order in places:
        path = [each * tokens + place for place in order for each in range(inputs)]
        expected += [path, path[::-1]]
    assert orders("interleaved", sizes) == expected


@pytest.mark.parametrize("sizes", [(2,), (7,), (1, 3), (2, 0), (5, 3), (2, 3, 4), (7, 2, 1)])
@pytest.mark.parametrize("inputs", [1, 2, 3, 8])
def test_side_by_side_by_loops(sizes, inputs):
    """Rows of the first axis dealt out one part after the other, the first parts a row longer."""
    within, tokens = math.prod(sizes[1:]), iter(range(math.prod(sizes)))
    lengths = [within * (sizes[0] // inputs + (part < sizes[0] % inputs)) for part in range(inputs)]
    expected = [[next(tokens) for _ in range(length)] for length in lengths]
    found = orders("side_by_side", sizes, inputs=inputs)
    assert [[token for token in path if token >= 0] for path in found] == expected
    scan = scans.get("side_by_side", inputs=inputs)
    assert scan.paths(len(sizes)) == inputs
    assert scan.most_steps(sizes) >= max(lengths)


def test_too_many_inputs_are_refused():
    with pytest.raises(UserError, match="too many inputs"):
        orders("side_by_side", (4,), inputs=2000)


@pytest.mark.parametrize("sizes", [(4, 6), (5, 7), (1, 4), (3, 1)])
@pytest.mark.parametrize("step", [2, 3])
def test_multi_scale_by_loops(sizes, step):
    """One path over all tokens; backwards, down the columns and that backwards over every step-th row and column."""
    height, width = sizes
    rows = [h * width + w for h in range(0, height, step) for w in range(0, width, step)]
    columns = [h * width + w for w in range(0, width, step) for h in range(0, height, step)]
    expected = [list(range(height * width)), rows[::-1], columns, columns[::-1]]
    found = orders("multi_scale", sizes, step=step)
    assert [[token for token in path if token >= 0] for path in found] == expected


@pytest.mark.parametrize("name", ["multi_scale", "cross", "skip", "raster", "local"])
@pytest.mark.parametrize("sizes", [(4, 6), (5, 7), (1, 3), (1, 1)])
def test_paths_over_a_coarser_map(name, sizes):
    """What is walked there, put back at its tokens, is each path of the grid without the tokens between the corners."""
    scan = scans.get(name)
    walked, visited = coarse_paths(scan, sizes)
    rows, columns = (-(-size // 2) for size in sizes)
    corners = {
        h * sizes[1] + w: (h // 2) * columns + w // 2 for h in range(0, sizes[0], 2) for w in range(0, sizes[1], 2)
    }
    expected = [[corners[token] for token in path if token in corners] for path in scan.order(sizes).tolist()[1:]]
    assert walked.tolist() == [token for path in expected for token in path]
    assert visited.shape == (scan.paths(2) - 1, rows * columns)
    begin = 0
    for path, found in zip(expected, visited.tolist(), strict=True):
        assert [found[token] for token in path] == list(range(begin, begin + len(path)))
        assert all(step == len(walked) for token, step in enumerate(found) if token not in path)
        begin += len(path)


@pytest.mark.parametrize("name", ["hierarchical", "dilated", "interleaved"])
@pytest.mark.parametrize("sizes", [(1, 1), (7, 5), (3, 9), (2, 5, 3), (0, 3)])
def test_each_path_visits_every_token_once(name, sizes):
    tokens = sorted(range(len(list(itertools.product(*map(range, sizes))))))
    assert all(sorted(path) == tokens for path in orders(name, sizes))
