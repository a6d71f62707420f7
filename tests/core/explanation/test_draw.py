import numpy as np
import pytest
import torch
from PIL import Image

from polymamba.core.errors import UserError
from polymamba.core.explanation import draw_image, draw_matrix, draw_text, heat_over
from polymamba.core.scans import Grid


def test_matrix(tmp_path):
    matrix = torch.rand(5, 5).tril()
    figure = draw_matrix(matrix, ["a", "b$", "\n", "d", ""], tmp_path / "m.png")
    axes = figure.axes[0]
    np.testing.assert_allclose(axes.images[0].get_array(), matrix)
    assert [t.get_text() for t in axes.get_xticklabels()] == ["a", "b$", "⏎", "d", "∅"]
    with Image.open(tmp_path / "m.png") as picture:
        assert picture.size[0] > 300
    signed = draw_matrix(matrix - 0.5).axes[0].images[0]
    assert signed.get_clim()[0] == -signed.get_clim()[1]


def test_text_is_written_in_lines_and_marked_by_weight():
    tokens = ["def ", "f", "(x):\n", "    return ", "x" * 100, "", "$y$"]
    weights = torch.tensor([0.0, 1.0, 0.5, 0.0, 0.2, 0.1, 0.0])
    figure = draw_text(weights, tokens, answer=6)
    axes = figure.axes[0]
    assert [t.get_text() for t in axes.texts] == [
        "def ", "f", "(x):⏎", "    return ", "x" * 79 + "…", "∅", "$y$",
    ]  # fmt: skip
    tops = [round(patch.get_y() - 0.06) for patch in axes.patches]
    assert tops == [0, 0, 0, 1, 2, 3, 3]
    redness = [1 - patch.get_facecolor()[1] for patch in axes.patches]
    assert redness[1] == max(redness)
    assert redness[0] == min(redness)
    assert [patch.get_edgecolor()[3] for patch in axes.patches] == [0] * 6 + [1]


@pytest.mark.parametrize("image", [None, torch.rand(1, 12, 20), torch.rand(3, 12, 20), torch.rand(12, 20)])
def test_image(image, tmp_path):
    grid, weights = Grid.with_class_token((3, 5), "middle"), torch.rand(16)
    figure = draw_image(weights, grid, image, tmp_path / "i.png")
    heat = figure.axes[-1].images[-1].get_array()
    if image is None:
        kept = weights[[t for t in range(16) if t not in grid.extra]].view(3, 5)
        np.testing.assert_allclose(heat, (kept - kept.min()) / (kept.max() - kept.min()), rtol=1e-5)
    else:
        assert len(figure.axes) == 2
        np.testing.assert_allclose(heat, heat_over(weights, grid, image).permute(1, 2, 0))
    assert (tmp_path / "i.png").stat().st_size > 1000


def test_heat_lies_over_the_token_that_weighs_most():
    grid, weights = Grid.with_class_token((2, 3), "front"), torch.zeros(7)
    weights[0], weights[1 + 5] = 9, 1  # a class token, and the patch at the lower right
    found = heat_over(weights, grid, torch.zeros(1, 8, 12))
    assert found.shape == (3, 8, 12)
    assert found.min() >= 0
    assert found.max() <= 1
    brightness = found.sum(0)
    row, column = divmod(int(brightness.argmax()), 12)
    assert row >= 4
    assert column >= 8
    assert brightness[:4, :4].max() < 0.1
    seen = heat_over(weights, grid, torch.eye(8, 12)[None])
    assert seen[:, 1, 1].sum() > seen[:, 1, 2].sum() + 1  # the image shines through


def test_text_under_a_heading(tmp_path):
    figure = draw_text(torch.tensor([0.0, 1.0]), ["a", "b"], file=tmp_path / "t.png", heading="what $x$ rests on")
    assert [t.get_text() for t in figure.texts] == ["what $x$ rests on"]
    figure.canvas.draw()
    above, below = figure.texts[0].get_window_extent(), figure.axes[0].get_window_extent()
    assert above.y0 >= below.y1
    assert draw_text(torch.tensor([0.0, 1.0]), ["a", "b"]).texts == []


def test_wrong_shapes():
    with pytest.raises(UserError, match="one sample"):
        draw_text(torch.rand(2, 3), ["a", "b", "c"])
    with pytest.raises(UserError, match="every token"):
        draw_text(torch.rand(3), ["a"])
    with pytest.raises(UserError, match="grid"):
        draw_image(torch.rand(5), (2, 2))
