"""Loss and metrics of the segmentation task against plain counting and MONAI."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch.nn import functional as F

from polymamba.domains.dice import soft_dice
from polymamba.domains.medical.measures import dice_of, distances_of
from polymamba.domains.medical.segmentation import Segmentation
from polymamba.domains.windows import segment

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
    truth, said = torch.zeros(20, 20, dtype=torch.long), torch.zeros(20, 20, dtype=torch.long)
    truth[5:10, 5:10], said[6:11, 5:10], truth[15, 15] = 1, 1, 2
    nsd, hd95 = distances_of(said, truth, 3, [3.0, 1.0], 3.0)
    assert hd95[0] == pytest.approx(3.0)
    assert nsd[0] == pytest.approx(1.0)
    assert hd95[1] == pytest.approx(math.hypot(60, 20))
    assert nsd[1] == 0
    assert math.isnan(nsd[2])
    assert math.isnan(hd95[2])


def test_distances_within_a_box_are_those_of_the_whole_volume():
    """At the border too, where the surface is the volume's end."""
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice

    generator = torch.Generator().manual_seed(0)
    said, truth = torch.zeros(2, 12, 9, 15, dtype=torch.long)
    said[0:5, 2:6, 3:9], truth[1:6, 2:7, 3:8] = 1, 1
    said ^= (torch.rand(said.shape, generator=generator) < 0.02).long()
    nsd, hd95 = distances_of(said, truth, 1, [2.0, 1.0, 1.5], 2.0)
    pair = [F.one_hot(each, 2).movedim(-1, 0)[None].bool() for each in (said, truth)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        assert nsd[0] == compute_surface_dice(*pair, class_thresholds=[2.0], spacing=[2.0, 1.0, 1.5])[0, 0]
        assert hd95[0] == compute_hausdorff_distance(*pair, percentile=95, spacing=[2.0, 1.0, 1.5])[0, 0]


def test_a_volume_is_measured_plane_by_plane_as_at_once():
    """Loss and answer of whole volumes are those of all logits in memory."""
    model = torch.nn.Conv2d(1, 3, 3, padding=1)
    task = Segmentation(model, DESCRIBE, mirror=True)
    images, labels = (
        seeded(2, 1, 19, 11).float(),
        torch.randint(0, 3, (2, 19, 11), generator=torch.Generator().manual_seed(1)),
    )
    labels[:, 3:5] = 255
    loss, metrics = task.step((images, labels), "val")
    logits = segment(model, images, (8, 8), mirror=True)
    assert float(loss) == pytest.approx(float(task.loss([logits], labels)), rel=1e-5)
    said = torch.where(labels == 255, 0, logits.argmax(1))
    dices = [
        dice_of(one, torch.where(truth == 255, 0, truth), 2).mean() for one, truth in zip(said, labels, strict=True)
    ]
    assert float(metrics["dice"].compute()) == pytest.approx(float(sum(dices)) / 2, rel=1e-5)


def test_regions_are_learnt_and_measured_together():
    from monai.losses import DiceLoss

    logits, labels = seeded(2, 3, 6, 7), torch.randint(0, 3, (2, 6, 7), generator=torch.Generator().manual_seed(1))
    task = Segmentation(torch.nn.Identity(), {**DESCRIBE, "regions": {"whole": [1, 2], "core": [2]}})
    likely = logits.softmax(1)
    truth = torch.stack([labels > 0, labels == 2], 1)
    theirs = DiceLoss(batch=True, smooth_nr=1e-5, smooth_dr=1e-5)
    expected = theirs(torch.stack([likely[:, 1] + likely[:, 2], likely[:, 2]], 1), truth)
    found = task.loss([logits], labels) - F.cross_entropy(logits, labels)
    assert float(found) == pytest.approx(float(expected), rel=1e-5)
    said = torch.zeros(12, 12, dtype=torch.uint8)
    true = said.clone()
    said[2:6, 2:6], true[2:6, 2:6], true[3, 3] = 1, 1, 2
    measured = task._measured(said, true, True)
    assert measured["dice"].tolist() == [1.0, 0.0]
    assert measured["hd95"][0] == 0
    assert set(task.metrics["test"]) >= {"dice_whole", "dice_core", "nsd_whole"}
