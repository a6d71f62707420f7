"""Windows that slide, planes that pass by: the same as with everything in memory."""

from __future__ import annotations

import pytest
import torch

from polymamba.domains.windows import count_windows, logits_along, segment


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
