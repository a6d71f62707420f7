"""A volume on another grid, plane by plane: the same as with everything in memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from polymamba.domains.medical.inference import likeliest, on_grid


def seeded(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("sizes", [(9, 4, 7), (3, 6, 7), (5, 6, 7), (1, 1, 1), (23, 12, 9)])
def test_planes_of_another_grid_are_those_of_the_volume_resampled(sizes):
    whole = seeded(4, 5, 6, 7)
    expected = torch.nn.functional.interpolate(whole[None], size=sizes, mode="trilinear")[0]
    torch.testing.assert_close(torch.stack(list(on_grid(whole.unbind(1), 5, sizes)), 1), expected)
    rows = torch.nn.functional.interpolate(whole[None, :, :, 0], size=sizes[:2], mode="bilinear")[0]
    torch.testing.assert_close(torch.stack(list(on_grid(whole[:, :, 0].unbind(1), 5, sizes[:2])), 1), rows)


def test_the_likeliest_class_is_that_of_the_mean():
    one, other = seeded(3, 4, 5).softmax(0), seeded(3, 4, 5).flip(0).softmax(0)
    found = likeliest([one.unbind(1), other.unbind(1)], (4, 5))
    np.testing.assert_array_equal(found, (one + other).argmax(0).numpy())
