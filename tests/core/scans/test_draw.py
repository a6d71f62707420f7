"""Pictures of scans: every mode can be drawn, and the picture shows its paths."""

import itertools

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from PIL import Image

from polymamba.core import scans
from polymamba.core.errors import UserError
from polymamba.core.scans import Grid
from polymamba.core.scans.modes import MODES


def panels(figure):
    return [axes for axes in figure.axes if axes.get_title()]


@pytest.mark.parametrize("name", scans.names())
def test_one_panel_for_each_path(name):
    ndim = MODES[name].ndims[0]
    sizes = (8, 9, 8)[:ndim]
    scan = scans.get(name)
    figure = scans.draw(name, sizes)
    assert isinstance(figure, Figure)
    assert len(panels(figure)) == scan.paths(ndim)
    assert str(scan) in figure.get_suptitle()


@pytest.mark.parametrize("where", ["front", "middle", "end", "double"])
def test_the_lines_join_the_tokens_in_order(where):
    grid = Grid.with_class_token((4, 5), where)
    figure = scans.draw("continuous", grid)
    for axes, order in zip(panels(figure), scans.get("continuous").order(grid).tolist(), strict=True):
        jumps, steps = [c for c in axes.collections if isinstance(c, LineCollection)]
        drawn = {tuple(np.round(piece, 3).ravel()) for c in (jumps, steps) for piece in c.get_segments()}
        assert len(drawn) == grid.length - 1
        tokens = [token for token in range(grid.length) if token not in grid.extra]
        joined = 0
        for before, after in itertools.pairwise(order):
            if before in tokens and after in tokens:
                (y0, x0), (y1, x1) = (divmod(tokens.index(token), 5) for token in (before, after))
                assert (x0, y0, x1, y1) in drawn
                joined += abs(x0 - x1) + abs(y0 - y1) == 1
        assert joined == len(steps.get_segments())


@pytest.mark.parametrize("sizes", [(6,), (3, 4), (2, 3, 4), (1, 1), (1,), (1, 1, 1), (0, 3), (0,), (0, 2, 2)])
@pytest.mark.parametrize("extra", [(), (0,)])
def test_saving_a_picture(sizes, extra, tmp_path):
    file = tmp_path / "scan.png"
    scans.draw(scans.get("bidirectional"), Grid(sizes, extra), file=file)
    with Image.open(file) as picture:
        assert len(np.unique(np.asarray(picture.convert("L")))) > 10


def test_the_start_and_the_colours_show_the_direction(tmp_path):
    pictures = []
    for path in (0, 1):
        scans.draw("bidirectional", (4, 4), path=path, file=tmp_path / f"{path}.png")
        with Image.open(tmp_path / f"{path}.png") as picture:
            pictures.append(np.asarray(picture.convert("RGB")))
    assert pictures[0].shape == pictures[1].shape
    assert (pictures[0] != pictures[1]).any()


def test_one_path_and_one_layer():
    assert [axes.get_title() for axes in panels(scans.draw("cross", (3, 3), path=2))] == ["cross, path 2"]
    titles = [axes.get_title() for axes in panels(scans.draw(scans.get("raster+zigzag").layer(9), (3, 3)))]
    assert titles == ["raster", "zigzag, layer 1"]


@pytest.mark.parametrize("path", [4, -1, "scan.png", 1.5])
def test_a_path_that_is_not_there(path):
    with pytest.raises(UserError, match="no such path") as error:
        scans.draw("cross", (3, 3), path=path)
    assert error.value.allowed == "0 to 3, or None for all"
    assert ("file=" in (error.value.do or "")) == isinstance(path, str)


@pytest.mark.parametrize(
    ("name", "sizes", "rows"), [("cross", (2, 3, 4), [3, 3]), ("zigzag", (4, 4), [4, 4]), ("cross", (3, 3), [4])]
)
def test_rows_of_panels_are_even(name, sizes, rows):
    figure = scans.draw(name, sizes)
    places = [axes.get_subplotspec().rowspan.start for axes in panels(figure)]
    assert [places.count(row) for row in sorted(set(places))] == rows
