"""Windows that slide, planes that pass by: the same as with everything in memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from polymamba.domains.medical.inference import count_windows, likeliest, logits_along, on_grid, segment


def seeded(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


class Counted:
    """An image that remembers how many planes were read at once."""

    def __init__(self, image):
        self.image, self.sizes, self.most = image, tuple(image.shape[1:]), 0

    def read(self, first, last):
        self.most = max(self.most, last - first)
        return self.image[:, first:last].numpy()


def test_windows_of_any_volume_say_what_the_network_says():
    """A network that looks at single pixels is not changed by windows, padding or mirror images."""
    model = torch.nn.Conv2d(1, 3, 1).double()
    for sizes in ((8, 8), (5, 20), (19, 11), (1, 3)):
        images = seeded(2, 1, *sizes).double()
        for mirror in (False, True):
            torch.testing.assert_close(segment(model, images, (8, 8), mirror=mirror), model(images).detach())


@pytest.mark.parametrize("sizes", [(40, 33, 20), (5, 30, 9), (17, 8, 40), (12, 16, 9)])
@pytest.mark.parametrize("overlap", [0.5, 0.0, 0.7])
def test_windows_are_monais(sizes, overlap):
    from monai.inferers import sliding_window_inference

    model, image = torch.nn.Conv3d(1, 3, 3, padding=1), seeded(1, 1, *sizes)
    theirs = sliding_window_inference(image, (12, 16, 9), 4, model, overlap=overlap, mode="gaussian").detach()
    torch.testing.assert_close(segment(model, image, (12, 16, 9), overlap), theirs)


def test_memory_holds_a_patch_of_planes():
    image, told = Counted(seeded(1, 50, 9, 9)), []
    model = torch.nn.Conv3d(1, 2, 1)
    blocks = list(logits_along(model, image, (8, 8, 8), tick=told.append))
    assert image.most == 8
    assert max(block.shape[1] for block in blocks) == 8
    assert sum(block.shape[1] for block in blocks) == 50
    assert sum(told) == count_windows((50, 9, 9), (8, 8, 8), 0.5)


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
