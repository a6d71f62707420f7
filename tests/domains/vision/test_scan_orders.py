"""The orders of the papers' scans by plain loops on grids that are not square or even; what tied weights make of turned images."""

from __future__ import annotations

import pytest
import torch

from polymamba.core import scans
from polymamba.core.mixers import SS2D, Mamba
from polymamba.domains.vision.models.plainmamba import DirectionAware

GRIDS = [(4, 4), (5, 4), (4, 5), (3, 3), (5, 7), (1, 4), (4, 1), (6, 9)]


def raster(height, width):
    return [h * width + w for h in range(height) for w in range(width)]


def columns(height, width):
    return [h * width + w for w in range(width) for h in range(height)]


def row_snake(height, width):
    return [h * width + (w if h % 2 == 0 else width - 1 - w) for h in range(height) for w in range(width)]


def column_snake(height, width):
    return [(h if w % 2 == 0 else height - 1 - h) * width + w for w in range(width) for h in range(height)]


def snakes_from_each_corner(height, width):
    paths = []
    for top, left in ((True, True), (True, False), (False, True), (False, False)):
        rows, places = (
            list(range(size)) if begin else list(range(size))[::-1] for size, begin in ((height, top), (width, left))
        )
        paths.append([h * width + w for n, h in enumerate(rows) for w in (places if n % 2 == 0 else places[::-1])])
        paths.append([h * width + w for n, w in enumerate(places) for h in (rows if n % 2 == 0 else rows[::-1])])
    return paths


def windows(height, width, side):
    return [
        h * width + w
        for top in range(0, height, side)
        for left in range(0, width, side)
        for h in range(top, min(top + side, height))
        for w in range(left, min(left + side, width))
    ]


def every_second(height, width):
    parts = []
    for number, (row, column) in enumerate(((0, 0), (1, 0), (0, 1), (1, 1))):
        rows, places = range(row, height, 2), range(column, width, 2)
        along_rows = [h * width + w for h in rows for w in places]
        parts.append(along_rows if number % 2 == 0 else [h * width + w for w in places for h in rows])
    return parts


def orders(name, grid, **parameters):
    return [[t for t in path if t >= 0] for path in scans.get(name, **parameters).order(grid).tolist()]


@pytest.mark.parametrize("grid", GRIDS)
def test_orders_are_those_of_plain_loops(grid):
    rows, down = raster(*grid), columns(*grid)
    assert orders("cross", grid) == [rows, down, rows[::-1], down[::-1]]
    assert orders("cross_uni", grid) == [rows] * 4
    assert orders("cross_bidi", grid) == [rows, rows, rows[::-1], rows[::-1]]
    snake, turned = row_snake(*grid), column_snake(*grid)
    assert orders("continuous", grid) == [snake, snake[::-1], turned, turned[::-1]]
    assert orders("zigzag", grid) == snakes_from_each_corner(*grid)
    for side in (2, 3, 7):
        assert orders("local", grid, window=side) == [windows(*grid, side)]
        assert orders("local_flip", grid, window=side) == [windows(*grid, side)[::-1]]
        assert orders("local_vim", grid, window=side)[2:] == [windows(*grid, side), windows(*grid, side)[::-1]]
    assert orders("skip", grid) == every_second(*grid)
    assert orders("mamba_nd", grid) == [rows, rows[::-1], down, down[::-1]]


@pytest.mark.parametrize("slices", [2, 3, 5])
def test_the_third_path_of_volumes(slices):
    """Place by place through all slices."""
    height, width = 3, 4
    each = height * width
    expected = [number * each + place for place in range(each) for number in range(slices)]
    assert orders("slices", (slices, height, width))[2] == expected


def half_turn(x, height, width):
    return x.flip(1)


def transposed(x, height, width):
    return x.unflatten(1, (height, width)).transpose(1, 2).flatten(1, 2)


def mirrored(x, height, width):
    return x.unflatten(1, (height, width)).flip(2).flatten(1, 2)


def tied(kind, **options):
    """A mixer all of whose paths have the same parameters, without a convolution."""
    torch.manual_seed(0)
    made = kind(4, scan="cross", axes=2, conv="none", dtype=torch.float64, **options)
    with torch.no_grad():
        for name, each in made.named_parameters():
            each.add_(0.3 * torch.randn_like(each))
            if name in ("x_proj_weight", "dt_projs_weight", "dt_projs_bias"):
                each.copy_(each[:1].expand_as(each))
            elif name in ("A_logs", "Ds"):
                each.copy_(each[: len(each) // 4].repeat(4, *[1] * (each.dim() - 1)))
    return made


@pytest.mark.parametrize("size", [(3, 5), (4, 4), (1, 6)])
@pytest.mark.parametrize("kind", [SS2D, Mamba])
def test_a_tied_cross_commutes_with_half_turns_and_transposes(kind, size):
    """The four paths change places with one another; mirrored they would be others."""
    mixer = tied(kind, **({"parameters": "shared"} if kind is Mamba else {}))
    x = torch.randn(2, size[0] * size[1], 4, dtype=torch.float64)
    y = mixer(x, size)[0]
    torch.testing.assert_close(mixer(half_turn(x, *size), size)[0], half_turn(y, *size), rtol=1e-8, atol=1e-10)
    turned = mixer(transposed(x, *size), size[::-1])[0]
    torch.testing.assert_close(turned, transposed(y, *size), rtol=1e-8, atol=1e-10)
    if min(size) > 1:
        assert not torch.allclose(mixer(mirrored(x, *size), size)[0], mirrored(y, *size))


@pytest.mark.parametrize("size", [(3, 3), (3, 5)])
def test_directions_tell_turned_images_apart(size):
    """PlainMamba's snakes over odd sides are one another's half turns, but a step to the right is not one to the left."""
    torch.manual_seed(0)
    mixer = DirectionAware(4, dtype=torch.float64)
    with torch.no_grad():
        mixer.direction_Bs.normal_()
        mixer.conv2d.weight.zero_()
        mixer.conv2d.weight[:, :, 3, 3] = 1  # each token alone
    x = torch.randn(2, size[0] * size[1], 4, dtype=torch.float64)
    assert not torch.allclose(mixer(half_turn(x, *size), size)[0], half_turn(mixer(x, size)[0], *size))
    with torch.no_grad():
        mixer.direction_Bs.zero_()
    turned = mixer(half_turn(x, *size), size)[0]
    torch.testing.assert_close(turned, half_turn(mixer(x, size)[0], *size), rtol=1e-8, atol=1e-10)
