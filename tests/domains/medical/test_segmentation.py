"""Loss and metrics of the segmentation task against plain counting and MONAI."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from polymamba.domains.medical.inference import segment
from polymamba.domains.medical.segmentation import Segmentation, dice_of, soft_dice

DESCRIBE = {"classes": ["background", "one", "two"], "patch_size": [8, 8], "spacing": [1.0, 1.0]}


def seeded(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_dice_counts_voxels():
    truth = torch.tensor([[0, 1, 1, 2], [0, 1, 0, 0]])
    said = torch.tensor([[0, 1, 0, 0], [1, 1, 0, 0]])
    found = dice_of(said, truth, 3)
    assert found[0] == pytest.approx(2 * 2 / (3 + 3))
    assert found[1] == 0
    assert math.isnan(found[2])


def test_the_loss_is_monais():
    from monai.losses import DiceLoss

    logits, labels = seeded(2, 3, 6, 7), torch.randint(0, 3, (2, 6, 7), generator=torch.Generator().manual_seed(1))
    theirs = DiceLoss(
        include_background=False, to_onehot_y=True, softmax=True, batch=True, smooth_nr=1e-5, smooth_dr=1e-5
    )
    assert 1 - soft_dice(logits, labels).mean() == pytest.approx(float(theirs(logits, labels[:, None])), rel=1e-6)
    task = Segmentation(torch.nn.Identity(), DESCRIBE)
    expected = theirs(logits, labels[:, None]) + F.cross_entropy(logits, labels)
    assert float(task.loss([logits], labels)) == pytest.approx(float(expected), rel=1e-5)


def test_coarser_scales_weigh_less():
    task = Segmentation(torch.nn.Identity(), DESCRIBE)
    fine, coarse = seeded(1, 3, 8, 8), seeded(1, 3, 4, 4)
    labels = torch.randint(0, 3, (1, 8, 8), generator=torch.Generator().manual_seed(1))
    parts = [task.loss([fine], labels), task.loss([coarse], labels[:, 1::2, 1::2])]
    assert float(task.loss([fine, coarse], labels)) == pytest.approx(float((parts[0] + 0.5 * parts[1]) / 1.5), rel=1e-5)


def test_what_is_not_known_is_neither_learnt_nor_counted():
    task, labels = Segmentation(torch.nn.Identity(), DESCRIBE), torch.ones(1, 8, 8, dtype=torch.long)
    labels[:, :4] = 255
    logits = seeded(1, 3, 8, 8).requires_grad_()
    task.loss([logits], labels).backward()
    assert logits.grad[:, :, :4].abs().max() == 0
    assert logits.grad[:, :, 4:].abs().max() > 0


def test_distances_are_in_mm_and_a_missed_class_is_as_far_as_the_volume_is_long():
    task = Segmentation(torch.nn.Identity(), {**DESCRIBE, "spacing": [3.0, 1.0]}, tolerance=3.0)
    truth, said = torch.zeros(20, 20, dtype=torch.long), torch.zeros(20, 20, dtype=torch.long)
    truth[5:10, 5:10], said[6:11, 5:10], truth[15, 15] = 1, 1, 2
    found = task._distances(said, truth)
    assert found["hd95"][0] == pytest.approx(3.0)
    assert found["nsd"][0] == pytest.approx(1.0)
    assert found["hd95"][1] == pytest.approx(math.hypot(60, 20))
    assert found["nsd"][1] == 0


def test_windows_of_any_volume_say_what_the_network_says():
    """A network that looks at single pixels is not changed by windows, padding or mirror images."""
    model = torch.nn.Conv2d(1, 3, 1).double()
    for sizes in ((8, 8), (5, 20), (19, 11)):
        images = seeded(2, 1, *sizes)
        for mirror in (False, True):
            torch.testing.assert_close(segment(model, images, (8, 8), mirror=mirror), model(images).detach())
