"""The published sets of images: their divisions, and pixels that become one."""

from __future__ import annotations

import os

import numpy as np
import pytest
from PIL import Image

from polymamba.core.errors import UserError
from polymamba.data.medical import ChaseDB1, Membrane
from polymamba.data.medical.segmentation import shrunk


@pytest.fixture
def retinas(tmp_path):
    """28 small pictures under the names of CHASE_DB1."""
    folder = tmp_path / "medical" / "chase_db1"
    folder.mkdir(parents=True)
    for child in range(1, 15):
        for eye in "LR":
            noise = np.random.default_rng(child).integers(0, 256, (25, 31, 3), np.uint8)
            vessel = Image.new("1", (31, 25))
            vessel.paste(1, (3, 4, 12, 20))
            Image.fromarray(noise).save(folder / f"Image_{child:02}{eye}.jpg")
            vessel.save(folder / f"Image_{child:02}{eye}_1stHO.png")
    return tmp_path


def test_children_are_in_one_part_alone(retinas):
    data = ChaseDB1(str(retinas), patch_size=16)
    assert data.describe().counts == {"train": 144, "val": 2, "test": 8}
    children = {split: {case.name[6:8] for case in cases} for split, cases in data.splits.items()}
    assert children["test"] == {"11", "12", "13", "14"}
    assert children["val"] == {"10"}
    assert not children["train"] & (children["test"] | children["val"])
    image, labels = data.load_batch("val", 0, np.arange(1))
    assert image.shape == (1, 3, 25, 31)
    assert labels.unique().tolist() == [0, 1]


def test_a_retina_that_is_damaged_or_missing_is_named(retinas, tmp_path):
    path = retinas / "medical" / "chase_db1" / "Image_03R.jpg"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError) as refused:
        ChaseDB1(str(retinas)).setup()
    assert str(path) in str(refused.value)
    path.unlink()
    with pytest.raises(UserError) as refused:
        ChaseDB1(str(retinas)).setup()
    assert str(path) in str(refused.value)
    with pytest.raises(UserError, match="CHASE_DB1 is not there"):
        ChaseDB1(str(tmp_path / "nowhere")).setup()


def test_sections_that_are_not_there_or_changed(tmp_path):
    with pytest.raises(UserError, match=r"train_images\.npy is not there"):
        Membrane(str(tmp_path)).setup()
    np.save(tmp_path / "train_images.npy", np.zeros((30, 512, 512), np.uint8))
    with pytest.raises(UserError, match="wrong checksum") as refused:
        Membrane(str(tmp_path)).setup()
    assert str(tmp_path / "train_images.npy") in str(refused.value)
    with pytest.raises(UserError, match="no such fold"):
        Membrane(fold=5)


@pytest.mark.skipif("POLYMAMBA_DATA" not in os.environ, reason="POLYMAMBA_DATA names no folder")
def test_blocks_of_neighbouring_sections():
    try:
        data = Membrane(shrink=8, fold=2)
        data.setup()
    except UserError as error:
        pytest.skip(str(error).splitlines()[0])
    numbers = {split: [int(case.name.split()[1]) for case in cases] for split, cases in data.splits.items()}
    assert numbers["test"] == list(range(12, 18))
    assert numbers["val"] == [0, 29]
    assert sorted(number for each in numbers.values() for number in each) == list(range(30))
    assert data.splits["test"][0].image.shape == (1, 64, 64)


def test_many_pixels_become_one():
    image, labels = np.arange(2 * 5 * 7, dtype=np.uint8).reshape(2, 5, 7), np.zeros((5, 7), np.uint8)
    labels[0, :2], labels[:2, 2:4], labels[2, 4] = 1, 2, 1
    small, classes = shrunk(image, labels, 2)
    assert small.shape == (2, 2, 3)
    assert small[0, 0, 0] == pytest.approx((0 + 1 + 7 + 8) / 4)
    assert classes.tolist() == [[1, 2, 0], [0, 0, 0]]
    assert shrunk(image, labels, 1)[0] is image
