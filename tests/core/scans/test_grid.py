"""Grids, and where extra tokens join the paths."""

import pytest
import torch

from polymamba.core import scans
from polymamba.core.errors import UserError
from polymamba.core.scans import Grid


@pytest.mark.parametrize(
    ("where", "extra"), [("none", ()), ("front", (0,)), ("middle", (7,)), ("end", (15,)), ("double", (0, 16))]
)
def test_class_tokens(where, extra):
    grid = Grid.with_class_token([3, 5], where)
    assert grid == Grid((3, 5), extra)
    assert (grid.ndim, grid.tokens, grid.length) == (2, 15, 15 + len(extra))


def test_vision_mamba_has_its_class_token_at_98():
    assert Grid.with_class_token((14, 14), "middle").extra == (98,)


def test_grid_tokens_are_numbered_around_the_extra_ones():
    order = scans.get("cross").order(Grid((2, 3), (3,)))
    # Sequence: grid tokens 0 1 2 at 0 1 2, the extra token at 3, grid tokens 3 4 5 at 4 5 6.
    assert order.tolist() == [
        [0, 1, 2, 3, 4, 5, 6],
        [0, 4, 1, 3, 5, 2, 6],
        [6, 5, 4, 3, 2, 1, 0],
        [6, 2, 5, 3, 1, 4, 0],
    ]


@pytest.mark.parametrize("extra", [(0,), (1,), (5,), (12,), (0, 13), (3, 4), (0, 1, 2), (2, 7, 13)])
@pytest.mark.parametrize("name", ["raster", "column", "hilbert", "zigzag", "diagonal"])
def test_a_forward_path_over_all_tokens_visits_an_extra_token_at_its_position(name, extra):
    grid = Grid((3, 4), extra)
    plain = scans.get(name).order((3, 4))
    order = scans.get(name).order(grid)
    on_grid = torch.tensor([position for position in range(grid.length) if position not in extra])
    steps = torch.tensor([step for step in range(grid.length) if step not in extra])
    backward = {1, 3} if name == "hilbert" else {2, 3} if name == "diagonal" else set()
    for number, (path, without) in enumerate(zip(order, plain, strict=True)):
        if number in backward:
            path, without = path.flip(0), without.flip(0)
        assert path[list(extra)].tolist() == list(extra)
        assert torch.equal(path[steps], on_grid[without].int())


@pytest.mark.parametrize("position", range(36))
def test_a_short_path_visits_an_extra_token_after_the_same_share(position):
    order = scans.get("skip").order(Grid((5, 7), (position,)))
    sizes = [12, 8, 9, 6]
    for path, steps in zip(order, sizes, strict=True):
        assert path.tolist().index(position) == position * steps // 35
        assert (path >= 0).sum() == steps + 1


def test_both_class_tokens_stand_at_the_ends_of_short_paths():
    grid = Grid.with_class_token((5, 7), "double")
    for path in scans.get("skip").order(grid):
        visited = path[path >= 0].tolist()
        assert (visited[0], visited[-1]) == (0, 36)


@pytest.mark.parametrize(
    ("sizes", "extra", "problem"),
    [
        ((), (), "at least one axis"),
        ((3, -1), (), "at least one axis"),
        ((3.5, 2), (), "whole numbers"),
        ("ab", (), "whole numbers"),
        ((2, 2), (5,), "do not fit"),
        ((2, 2), (-1,), "do not fit"),
        ((2, 2), (3, 1), "do not fit"),
        ((2, 2), (1, 1), "do not fit"),
        ((2, 2), (0.5,), "whole numbers"),
    ],
)
def test_impossible_grids(sizes, extra, problem):
    with pytest.raises(UserError, match=problem):
        Grid(sizes, extra)


def test_an_unknown_place_for_the_class_token_names_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'middle'"):
        Grid.with_class_token((2, 2), "midle")


def test_too_many_tokens():
    with pytest.raises(UserError, match="too long"):
        scans.get("raster").order((2**31,))
