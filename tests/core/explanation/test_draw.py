import numpy as np
import pytest
import torch
from PIL import Image

from polymamba.core.errors import UserError
from polymamba.core.explanation import draw_image, draw_matrix, draw_text
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
    assert heat.shape == ((3, 5) if image is None else (12, 20))
    if image is None:
        kept = weights[[t for t in range(16) if t not in grid.extra]].view(3, 5)
        np.testing.assert_allclose(heat, (kept - kept.min()) / (kept.max() - kept.min()), rtol=1e-5)
    assert (tmp_path / "i.png").stat().st_size > 1000


def test_wrong_shapes():
    with pytest.raises(UserError, match="one sample"):
        draw_text(torch.rand(2, 3), ["a", "b", "c"])
    with pytest.raises(UserError, match="every token"):
        draw_text(torch.rand(3), ["a"])
    with pytest.raises(UserError, match="grid"):
        draw_image(torch.rand(5), (2, 2))
