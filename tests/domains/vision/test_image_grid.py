"""Grids of images."""

import numpy as np
import pytest
import torch

from polymamba.domains.vision.image_grid import denormalise, draw_grid, even_columns, shorten


def test_denormalise_undoes_a_loaders_normalisation():
    images = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    normal = (images - torch.tensor(mean).reshape(3, 1, 1)) / torch.tensor(std).reshape(3, 1, 1)
    torch.testing.assert_close(denormalise(normal, mean, std), images)
    torch.testing.assert_close(denormalise(images.bfloat16() * 3 - 1, None, None).amin(), torch.tensor(0.0))
    assert denormalise(images * 3, None, None).max() == 1


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("count", [1, 5, 32])
def test_every_image_has_a_place(channels, count):
    images = torch.rand(count, channels, 6, 9, generator=torch.Generator().manual_seed(0))
    names = [f"image {i}" for i in range(count)]
    figure = draw_grid(images, names, "heading", colours=["#ff0000"] * count)
    filled = [axis for axis in figure.axes if axis.images]
    assert [axis.get_title() for axis in filled] == names
    shown = filled[-1].images[0].get_array()
    expected = images[-1].permute(1, 2, 0) if channels == 3 else images[-1].mean(0)
    assert np.allclose(shown, expected)


@pytest.mark.parametrize("size", [(4, 4), (4, 16), (16, 4)])
def test_nothing_overlaps(size):
    figure = draw_grid(torch.rand(10, 1, *size), ["two\nlines"] * 10, "heading")
    figure.canvas.draw()
    filled = [axis for axis in figure.axes if axis.images]
    boxes = [axis.get_tightbbox() for axis in filled]
    for index, box in enumerate(boxes):
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.width
        assert box.y0 >= 0
        assert box.y1 <= figure.texts[0].get_window_extent().y0, "the heading is written over"
        for other in boxes[index + 1 :]:
            assert not box.shrunk(0.99, 0.99).overlaps(other.shrunk(0.99, 0.99))


def test_shorten():
    assert shorten("cat") == "cat"
    assert shorten("hippopotamus amphibius", 12) == "hippopotamu…"


def test_no_image_stands_alone_in_the_last_row():
    for count in range(1, 49):
        columns = even_columns(count)
        rows, last = -(-count // columns), (count - 1) % columns + 1
        assert 1 <= columns <= 8
        assert rows == 1 or last >= 2, count
    assert [even_columns(count) for count in (16, 24, 32)] == [4, 6, 8]
