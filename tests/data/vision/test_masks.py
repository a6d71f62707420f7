"""Images with masks: crops, parts, folders, what is wrong with them; scenes made here; two published sets."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from polymamba.core.errors import UserError
from polymamba.data.loading import Loading
from polymamba.data.vision import ChaseDB1, DrawnShapes, EMMembrane, MaskFolder
from polymamba.data.vision.drawn_shapes import silhouette
from polymamba.data.vision.mask_files import read_mask

SMALL = {"train": 3, "val": 1, "test": 2, "side": (30, 20), "loading": Loading(batch_size=2)}
DATA = Path(os.environ.get("POLYMAMBA_DATA", "/nowhere")) / "medical"


def save(folder, name, size=(12, 10), values=None, mode="L"):
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "masks").mkdir(exist_ok=True)
    pixels = np.random.default_rng(len(name)).integers(0, 255, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "images" / f"{name}.png")
    values = np.arange(size[0] * size[1]).reshape(size) % 3 if values is None else values
    mask = Image.fromarray(values.astype(np.uint8))
    if mode == "P":
        mask = Image.frombytes("P", mask.size, mask.tobytes())
        mask.putpalette([0, 0, 0, 200, 10, 10, 10, 200, 10])
    mask.save(folder / "masks" / f"{name}.png")
    return values


def test_crops_keep_pixels_and_classes_together():
    data = DrawnShapes(**SMALL, image_size=(16, 24), noise=0)
    data.setup()
    images, classes = data.load_batch("train", 2, np.array([0, 2]))
    assert images.shape == (2, 3, 16, 24)
    assert classes.shape == (2, 16, 24)
    again = data.load_batch("train", 2, np.array([2]))
    assert torch.equal(images[1:], again[0])
    assert torch.equal(classes[1:], again[1])
    assert not torch.equal(again[0], data.load_batch("train", 3, np.array([2]))[0])
    assert (classes == 255).any()  # the scene is 20 pixels wide, the crop 24
    assert data.load_batch("test", 0, np.array([1]))[0].shape == (1, 3, 30, 20)
    assert data.example(3)[0].shape == (3, 3, 16, 24)
    plain = DrawnShapes(**SMALL, image_size=16, augment=False)
    plain.setup()
    image, mask = plain.splits["train"][0].read()
    found, classes = plain.load_batch("train", 0, np.array([0]))
    assert torch.equal(classes[0], torch.from_numpy(mask[7:23, 2:18]).long())
    torch.testing.assert_close(found[0] * 0.25 + 0.5, torch.from_numpy(image[:, 7:23, 2:18]) / 255)


def test_scenes_for_training_are_made_anew_in_each_epoch():
    data, where = DrawnShapes(**SMALL, image_size=32, augment=False), np.arange(2)
    data.setup()
    first, second, again = (data.load_batch("train", epoch, where) for epoch in (0, 1, 1))
    assert (first[0] != second[0]).flatten(1).any(1).all()
    assert all(torch.equal(one, other) for one, other in zip(second, again, strict=True))
    assert torch.equal(data.load_batch("test", 0, where)[0], data.load_batch("test", 3, where)[0])


def test_scenes():
    data = DrawnShapes(**SMALL, channels=1)
    described = data.describe()
    assert described.for_model["num_classes"] == 6
    assert described.for_model["image_size"] == [64, 64]
    assert data.load_batch("val", 0, np.array([0]))[0].shape == (1, 1, 30, 20)
    assert (data.splits["test"][0].read()[0] != data.splits["test"][1].read()[0]).any()
    disc, ring = (silhouette(form, (50, 50), 25, 25, 20, 0.3) for form in (1, 4))
    assert disc.sum() == pytest.approx(np.pi * 400, rel=0.02)
    assert ring.sum() == pytest.approx(np.pi * 400 * (1 - 0.55**2), rel=0.02)
    assert silhouette(2, (50, 50), 25, 25, 20, 0.7).sum() == pytest.approx(34**2, rel=0.03)


def test_folders_with_an_automatic_division(tmp_path):
    truth = {f"p{number}": save(tmp_path, f"p{number}", (12, 10 + number), mode="P") for number in range(10)}
    data = MaskFolder(root=str(tmp_path), image_size=8)
    described = data.describe()
    assert described.counts == {"train": 7, "val": 1, "test": 2}
    assert described.for_model["classes"] == ["class 0", "class 1", "class 2"]
    for image in data.splits["test"]:
        assert np.array_equal(image.read()[1], truth[image.name.removesuffix(".png")])


def test_folders_for_each_part_binary_masks_and_names(tmp_path):
    for part in ("train", "val"):
        save(tmp_path / part, "a", values=np.eye(12, 10) * 255)
    data = MaskFolder(root=str(tmp_path), image_size=8, classes=["ground", "line"])
    assert data.describe().tested.startswith("the validation images")
    assert set(np.unique(data.splits["train"][0].read()[1])) == {0, 1}


def test_what_is_not_known(tmp_path):
    values = np.arange(120).reshape(12, 10) % 2
    values[0, 0] = 7
    for name in "abcd":
        save(tmp_path, name, values=values)
    data = MaskFolder(root=str(tmp_path), image_size=8, ignore=7)
    data.setup()
    assert data.classes == ("class 0", "class 1")
    assert data.splits["train"][0].read()[1][0, 0] == 255


def test_wrong_folders(tmp_path):
    with pytest.raises(UserError, match="needs a folder"):
        MaskFolder().describe()
    with pytest.raises(UserError, match="no such folder"):
        MaskFolder(root=str(tmp_path / "none")).describe()
    with pytest.raises(UserError, match="no folder for images"):
        MaskFolder(root=str(tmp_path)).describe()
    save(tmp_path, "a")
    (tmp_path / "masks" / "a.png").rename(tmp_path / "masks" / "b.png")
    with pytest.raises(UserError, match=r"a.png has no mask"):
        MaskFolder(root=str(tmp_path)).describe()
    (tmp_path / "masks" / "b.png").rename(tmp_path / "masks" / "a_mask.png")
    for name in "bcd":
        save(tmp_path, name)
    with pytest.raises(UserError, match="does not name"):
        MaskFolder(root=str(tmp_path), classes=["x", "y"]).describe()
    data = MaskFolder(root=str(tmp_path))
    data.setup()
    Image.new("L", (5, 5)).save(data.root + "/masks/b.png")
    with pytest.raises(UserError, match="differ in size"):
        [image.read() for part in data.splits.values() for image in part]


def test_masks_in_files(tmp_path):
    Image.fromarray(np.eye(4, dtype=bool)).save(tmp_path / "bit.png")
    assert read_mask(tmp_path / "bit.png").tolist() == np.eye(4, dtype=int).tolist()
    grey = np.full((3, 3, 3), 5, np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert (read_mask(tmp_path / "grey.png") == 5).all()
    grey[0, 0] = (1, 2, 3)
    Image.fromarray(grey).save(tmp_path / "colour.png")
    with pytest.raises(UserError, match="is no mask"):
        read_mask(tmp_path / "colour.png")
    (tmp_path / "no.png").write_text("no")
    with pytest.raises(UserError, match="Broken mask"):
        read_mask(tmp_path / "no.png")


def test_published_sets_that_are_not_there(tmp_path):
    for kind in (ChaseDB1, EMMembrane):
        with pytest.raises(UserError, match="is not there"):
            kind(root=str(tmp_path)).describe()


@pytest.mark.skipif(not DATA.is_dir(), reason="$POLYMAMBA_DATA holds no medical images")
def test_published_sets():
    membranes, vessels = EMMembrane(), ChaseDB1()
    assert membranes.describe().counts == {"train": 22 * 8, "val": 2, "test": 6}
    assert membranes.load_batch("test", 0, np.array([0]))[0].shape == (1, 1, 512, 512)
    assert vessels.describe().counts == {"train": 18 * 8, "val": 2, "test": 8}
    image, mask = vessels.splits["test"][0].read()
    assert image.shape == (3, 960, 999)
    assert 0.03 < mask.mean() < 0.15
