"""Images from anywhere: which ones a path means, and that they are prepared as a data set's own test images."""

import numpy as np
import pytest
import torch
from PIL import Image

from polymamba.core.errors import UserError
from polymamba.data.loading import Loading
from polymamba.data.vision import Digits, ImageFolder
from polymamba.data.vision.photos import Photos, find_images


@pytest.mark.parametrize("options", [{}, {"image_size": [6, 11]}, {"channels": 3, "image_size": 16}])
def test_a_data_sets_own_images_in_files_are_its_test_batch(tmp_path, options):
    data = Digits(Loading(batch_size=5, limit=5), **options)
    images, _ = next(iter(data.test_dataloader()))
    photos = data.photos()
    for number, pixels in enumerate(data.splits["test"].images):
        Image.fromarray(pixels[0].numpy()).save(tmp_path / f"{number}.png")
    opened = [photos.open(path) for path in photos.find(str(tmp_path))]
    assert torch.equal(photos.prepare(opened), images)
    assert torch.equal(photos.prepare(opened[2:3]), images[2:3])


@pytest.mark.parametrize("channels", [1, 3])
def test_files_are_prepared_as_an_image_folders_are(tmp_path, channels):
    generator = np.random.default_rng(0)
    for number in range(12):
        path = tmp_path / "train" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (40 + number, 61, 3), np.uint8)).save(path)
    data = ImageFolder(str(tmp_path), image_size=(24, 32), channels=channels, loading=Loading(batch_size=3))
    photos = data.photos()
    images, _ = next(iter(data.test_dataloader()))
    paths = data.splits["test"].images[:3]
    assert torch.equal(photos.prepare([photos.open(path) for path in paths]), images)


def test_a_photo_is_cut_to_the_proportions_of_the_data_set():
    """The middle of a wide picture, whose sides are red."""
    picture = Image.new("RGB", (30, 10), "red")
    picture.paste("white", (10, 0, 20, 10))
    prepared = Photos((8, 8), (0.0,), (1.0,), own=((8, 8), 1)).prepare([picture])
    assert torch.equal(prepared, torch.ones(1, 1, 8, 8))
    tall = Photos((8, 8), (0.0,), (1.0,), own=((16, 8), 1)).prepare([picture.rotate(90, expand=True)])
    assert float(tall.min()) < 0.5, "a tall data set sees more of a tall picture"


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (3000, 2)])
def test_odd_sizes(size):
    for own in (None, ((8, 8), 1)):
        photos = Photos((8, 8), (0.5,) if own else (0.5,) * 3, (0.5,) if own else (0.5,) * 3, own=own)
        prepared = photos.prepare([Image.new("RGB", size, "white")])
        assert torch.equal(prepared, torch.ones_like(prepared))
        assert prepared.shape[-2:] == (8, 8)


def test_what_a_path_means(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b.png", "a.JPG", "in/c.webp", "notes.txt", ".hidden.png", "odd"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()

    def names(where):
        return [path.name for path in find_images(where)]

    assert names(".") == ["a.JPG", "b.png", "c.webp"]
    assert names("**/*.*") == ["a.JPG", "b.png", "c.webp"]
    assert names("odd") == ["odd"]
    assert names(str(tmp_path / "in")) == ["c.webp"]
    for where, said in (
        ("empty", "no images in this folder"), ("c.png", "no such file"), ("*.gif", "no image matches"), ("b.pngg", "input=b.png"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=said):
            find_images(where)
