"""Folders that are broken, each in one way: every one is refused by the name of its file, with code 2, and nothing is written."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from PIL import Image

from polymamba.core.errors import UserError
from polymamba.data.medical import NiftiFolder


def volume_sizes(volumes, root):
    volumes.write(root / "labelsTr" / "case2.nii.gz", np.ones((12, 10, 7), np.uint8))
    return "labelsTr/case2.nii.gz"


def volume_spacing(volumes, root):
    volumes.write(root / "labelsTr" / "case2.nii.gz", np.ones((12, 10, 8), np.uint8), np.diag([1.0, 1.0, 3.0, 1.0]))
    return "labelsTr/case2.nii.gz"


def volume_origin(volumes, root):
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    affine[0, 3] = 40
    volumes.write(root / "labelsTr" / "case2.nii.gz", np.ones((12, 10, 8), np.uint8), affine)
    return "labelsTr/case2.nii.gz"


def volume_orientation(volumes, root):
    volumes.write(root / "labelsTr" / "case2.nii.gz", np.ones((12, 10, 8), np.uint8), np.diag([-1.0, 1.0, 2.0, 1.0]))
    return "labelsTr/case2.nii.gz"


def volume_nan(volumes, root):
    values = np.random.default_rng(0).normal(size=(12, 10, 8)).astype(np.float32)
    values[3, 3, 3] = np.nan
    volumes.write(root / "imagesTr" / "case2_0000.nii.gz", values)
    return "imagesTr/case2_0000.nii.gz"


def volume_constant(volumes, root):
    volumes.write(root / "imagesTr" / "case2_0000.nii.gz", np.zeros((12, 10, 8), np.float32))
    return "imagesTr/case2_0000.nii.gz"


def volume_values(volumes, root):
    volumes.write(root / "labelsTr" / "case2.nii.gz", np.full((12, 10, 8), 7, np.uint8))
    return "labelsTr/case2.nii.gz"


def volume_fractions(volumes, root):
    volumes.write(root / "labelsTr" / "case2.nii.gz", np.full((12, 10, 8), 0.5, np.float32))
    return "labelsTr/case2.nii.gz"


def volume_empty(volumes, root):
    volumes.write(root / "labelsTr" / "case2.nii.gz", np.zeros((12, 10, 8), np.uint8))
    return "labelsTr/case2.nii.gz"


def volume_no_labels(volumes, root):
    (root / "labelsTr" / "case2.nii.gz").unlink()
    return "imagesTr/case2_0000.nii.gz"


def volume_no_image(volumes, root):
    (root / "imagesTr" / "case2_0000.nii.gz").unlink()
    return "labelsTr/case2.nii.gz"


def volume_gzip(volumes, root):
    path = root / "imagesTr" / "case2_0000.nii.gz"
    path.write_bytes(path.read_bytes()[:-200])
    return "imagesTr/case2_0000.nii.gz"


def volume_content(volumes, root):
    (root / "labelsTr" / "case2.nii.gz").write_bytes(gzip.compress(b"not a volume" * 100))
    return "labelsTr/case2.nii.gz"


def volume_channels(volumes, root):
    volumes.write(root / "imagesTr" / "case2_0001.nii.gz", np.random.default_rng(0).normal(size=(12, 10, 8)))
    return "imagesTr/case2_0000.nii.gz"


def volume_meaning(volumes, root):
    (root / "dataset.json").write_text('{"labels": 3}')
    return "dataset.json"


@pytest.fixture
def images(tmp_path):
    """A folder of pairs of PNG images and masks: images() -> its path."""

    def write(count=6, sizes=(20, 16)):
        for number in range(count):
            mask = np.zeros(sizes, np.uint8)
            mask[4:11, 3:9] = 255
            values = (mask // 3 + np.random.default_rng(number).integers(0, 60, sizes)).astype(np.uint8)
            for folder, content in (("images", values), ("labels", mask)):
                (tmp_path / "set" / folder).mkdir(parents=True, exist_ok=True)
                Image.fromarray(content).save(tmp_path / "set" / folder / f"cell{number}.png")
        return tmp_path / "set"

    return write


def image_of_other_sizes(root):
    Image.new("L", (16, 19), 255).save(root / "labels" / "cell2.png")
    return "labels/cell2.png"


def image_cut_off(root):
    path = root / "images" / "cell2.png"
    path.write_bytes(path.read_bytes()[:60])
    return "images/cell2.png"


def image_of_text(root):
    (root / "labels" / "cell2.png").write_text("not an image")
    return "labels/cell2.png"


def image_without_mask(root):
    (root / "labels" / "cell2.png").unlink()
    return "images/cell2.png"


def image_mask_without_image(root):
    (root / "images" / "cell2.png").unlink()
    return "labels/cell2.png"


def image_mask_in_colours(root):
    Image.new("RGB", (16, 20), "red").save(root / "labels" / "cell2.png")
    return "labels/cell2.png"


def image_mask_as_jpeg(root):
    mask = Image.open(root / "labels" / "cell2.png")
    mask.save(root / "labels" / "cell2.jpg")
    mask.close()
    (root / "labels" / "cell2.png").unlink()
    return "labels/cell2.jpg"


def image_mask_empty(root):
    Image.new("L", (16, 20), 0).save(root / "labels" / "cell2.png")
    return "labels/cell2.png"


def image_among_grey_ones_in_colours(root):
    noise = np.random.default_rng(0).integers(0, 256, (20, 16, 3), np.uint8)
    Image.fromarray(noise).save(root / "images" / "cell2.png")
    return "images/cell2.png"


def image_twice(root):
    image = Image.open(root / "images" / "cell2.png")
    image.save(root / "images" / "cell2.tif")
    image.close()
    return "images/cell2.tif"


def image_of_many_pages(root):
    pages = [Image.fromarray(np.full((20, 16), number, np.uint8)) for number in range(3)]
    (root / "images" / "cell2.png").unlink()
    pages[0].save(root / "images" / "cell2.tif", save_all=True, append_images=pages[1:])
    return "images/cell2.tif"


def image_of_one_value(root):
    Image.new("L", (16, 20), 9).save(root / "images" / "cell2.png")
    return "images/cell2.png"


VOLUMES = {name: each for name, each in list(globals().items()) if name.startswith("volume_")}
IMAGES = {name: each for name, each in list(globals().items()) if name.startswith("image_")}


def asked(root):
    return ("domain=medical", "data=nifti_folder", f"data.root={root}", "run_dir=run", "trainer.progress=none")


@pytest.mark.parametrize("fault", VOLUMES)
def test_a_broken_folder_of_volumes(volumes, refused, fault):
    root = volumes()
    named = VOLUMES[fault](volumes, root)
    assert str(root / named) in refused(*asked(root))


@pytest.mark.parametrize("fault", IMAGES)
def test_a_broken_folder_of_images(images, refused, fault):
    root = images()
    named = IMAGES[fault](root)
    assert str(root / named) in refused(*asked(root))


def test_a_folder_of_images_that_is_whole(images):
    data = NiftiFolder(str(images()))
    data.setup()
    assert data.plan.values == (0, 255)
    assert data.splits["test"][0].labels.max() == 1


def test_masks_with_a_palette_hold_numbers(images):
    root = images()
    for path in (root / "labels").iterdir():
        mask = Image.fromarray((np.asarray(Image.open(path)) // 255).astype(np.uint8), "P")
        mask.putpalette([0, 0, 0, 200, 30, 30])
        mask.save(path)
    data = NiftiFolder(str(root))
    data.setup()
    assert data.plan.values == (0, 1)


def test_all_faults_are_said_at_once(volumes):
    root = volumes()
    names = [spoil(volumes, root) for spoil in (volume_nan, volume_empty)]
    with pytest.raises(UserError, match="2 faults") as refused:
        NiftiFolder(str(root)).setup()
    assert all(str(root / name) in str(refused.value) for name in names)
