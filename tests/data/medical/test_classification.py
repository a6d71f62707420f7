"""Batches of whole images."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.data.medical import SyntheticClasses
from polymamba.data.medical.synthetic import balls_in_noise

FEW = {"side": 16, "train": 5, "val": 2, "test": 2}


def test_a_batch_is_a_function_of_seed_epoch_and_position():
    data = SyntheticClasses(**FEW)
    data.setup()
    whole = data.load_batch("train", 3, np.arange(5))[0]
    apart = torch.cat([data.load_batch("train", 3, np.array([number]))[0] for number in range(5)])
    assert torch.equal(whole, apart)
    assert not torch.equal(whole, data.load_batch("train", 4, np.arange(5))[0])
    plain = SyntheticClasses(**FEW, augment=False)
    plain.setup()
    assert torch.equal(plain.load_batch("train", 3, np.arange(5))[0], plain.load_batch("train", 4, np.arange(5))[0])


def test_moved_images_keep_their_values():
    data = SyntheticClasses(**FEW)
    data.setup()
    for number in range(5):
        [image], case = data.load_batch("train", 0, np.array([number]))[0], data.splits["train"][number].image
        ratio = float(image.abs().max()) / np.abs(case).max()
        assert 0.9 <= ratio <= 1.1
        kept = np.isin(np.round(image.numpy()[image.numpy() != 0] / ratio, 3), np.round(case, 3)).mean()
        assert kept > 0.9


def test_sizes_of_ones_own(tmp_path):
    data = SyntheticClasses(**FEW, axes=3, image_size=[8, 10, 7])
    assert data.describe().for_model["image_size"] == [8, 10, 7]
    assert data.load_batch("val", 0, np.arange(2))[0].shape == (2, 1, 8, 10, 7)
    data.keep(tmp_path)
    other = SyntheticClasses(**FEW, axes=3)
    other.restore(tmp_path)
    assert other.volumes().plan.patch_size == (8, 10, 7)
    with pytest.raises(UserError, match="image_size does not fit"):
        SyntheticClasses(**FEW, image_size=[8, 8, 8]).setup()
    with pytest.raises(UserError, match="balls"):
        SyntheticClasses(balls=1)


def test_generated_classes_differ_in_their_number_of_balls():
    data = SyntheticClasses(**FEW, balls=6)
    data.setup()
    assert [case.label for case in data.splits["train"]] == [0, 1, 0, 1, 0]
    assert data.balls == (2, 6)
    few, many = (np.mean([balls_in_noise((16, 16), balls, 1, 0, (key,))[1] for key in range(20)]) for balls in (2, 6))
    assert many > 1.5 * few
