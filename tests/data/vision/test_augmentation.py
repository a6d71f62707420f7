import numpy as np
import pytest
import torch
from PIL import Image

from polymamba.core.errors import UserError
from polymamba.data.vision.augmentation import ArrayPreparation, Finish, Geometry, rand_augment, to_channels

POSITIONS = np.arange(200)
PLAIN = Finish((0.0,) * 3, (1.0,) * 3)


def noise(count=200, channels=3, size=8):
    return torch.from_numpy(np.random.default_rng(0).integers(1, 256, (count, channels, size, size), np.uint8))


def test_crop_is_a_shift_and_a_mirror_image():
    images = noise()
    moved = Geometry(shift=2, flip=True)(images, 0, 0, POSITIONS)
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2))
    found = set()
    for image, wide in zip(moved, padded, strict=True):
        options = {
            (y, x, f): wide[:, y : y + 8, x : x + 8].flip(2) if f else wide[:, y : y + 8, x : x + 8]
            for y in range(5)
            for x in range(5)
            for f in (False, True)
        }
        matching = [key for key, option in options.items() if torch.equal(image, option)]
        assert len(matching) == 1
        found.update(matching)
    assert len(found) > 40


@pytest.mark.parametrize("geometry", [Geometry(2, True), Geometry(1, True, 10.0, 0.1)])
def test_each_image_is_moved_by_its_own_number(geometry):
    images = noise()
    whole = geometry(images, 5, 2, POSITIONS)
    picked = [7, 3, 150]
    assert torch.equal(whole[picked], geometry(images[picked], 5, 2, POSITIONS[picked]))
    assert not torch.equal(whole, geometry(images, 5, 3, POSITIONS))
    assert not torch.equal(whole, geometry(images, 6, 2, POSITIONS))
    assert (whole.dtype, whole.shape) == (torch.uint8, images.shape)


def test_no_motion_leaves_images_as_they_are():
    images = noise()
    assert torch.equal(Geometry()(images, 0, 0, POSITIONS), images)
    nearly = Geometry(rotate=1e-9)(images, 0, 0, POSITIONS)
    assert (nearly.int() - images.int()).abs().max() <= 1


def test_a_turn_keeps_the_shape_of_wide_images():
    wide = torch.zeros(100, 1, 16, 48, dtype=torch.uint8)
    wide[:, :, 5:11, 21:27] = 255
    turned = Geometry(rotate=45.0)(wide, 0, 0, np.arange(100)).float() / 255
    assert (turned.sum((1, 2, 3)) - 36).abs().max() < 2


def test_channels():
    images = noise()
    grey = to_channels(images, 1)
    assert grey.shape == (200, 1, 8, 8)
    expected = torch.stack(
        [torch.from_numpy(np.array(Image.fromarray(i.permute(1, 2, 0).numpy()).convert("L"))) for i in images]
    )
    assert (grey[:, 0].int() - expected.int()).abs().max() <= 1
    assert torch.equal(to_channels(to_channels(grey, 3), 1), grey)


def test_normalisation():
    finished = Finish((0.5, 0.4, 0.3), (0.1, 0.2, 0.3))(noise(), 0, POSITIONS)
    mean, std = torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1), torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)
    torch.testing.assert_close(finished, (noise() / 255 - mean) / std)


def test_erasing_fills_rectangles_of_the_right_share():
    plain = Finish((0.5,) * 3, (0.5,) * 3)(noise(size=16), 0, POSITIONS)
    erased = Finish((0.5,) * 3, (0.5,) * 3, seed=1, erase=0.25)(noise(size=16), 0, POSITIONS)
    changed = (plain != erased).any(1)
    assert 30 <= changed.flatten(1).any(1).sum() <= 70
    for mask in changed[changed.flatten(1).any(1)]:
        rows, columns = mask.any(1), mask.any(0)
        assert mask.sum() == rows.sum() * columns.sum()
    again = Finish((0.5,) * 3, (0.5,) * 3, seed=1, erase=0.25)(noise(size=16), 0, POSITIONS)
    assert torch.equal(erased, again)


@pytest.mark.parametrize("channels", [1, 3])
def test_rand_augment_of_arrays_is_per_image(channels):
    images = noise(40, channels, 16)
    finish = Finish((0.5,) * channels, (0.5,) * channels)
    make = ArrayPreparation(images, (16, 16), finish, Geometry(2, True), "rand-m9-mstd0.5-inc1", seed=3)
    whole = make(0, np.arange(40))
    assert torch.equal(whole[[9, 4]], make(0, np.array([9, 4])))
    assert not torch.equal(whole, make(1, np.arange(40)))
    assert whole.shape == (40, channels, 16, 16)


def test_resize():
    images = torch.full((4, 3, 8, 8), 100, dtype=torch.uint8)
    bigger = ArrayPreparation(images, (20, 12), PLAIN)(0, np.arange(4))
    torch.testing.assert_close(bigger, torch.full((4, 3, 20, 12), 100 / 255))


@pytest.mark.parametrize("policy", ["rand-m10-n2-inc1", "rand-m10-mstd0.5", "original", "3a", "augmix-m5-w2"])
def test_every_policy_runs_at_its_strongest(policy):
    from polymamba.data.randomness import own_randomness

    vary = rand_augment(policy, (16, 16), PLAIN)
    image = Image.fromarray(noise(1, 3, 16)[0].permute(1, 2, 0).numpy())
    with own_randomness() as seed:
        for key in range(150):
            seed(key)
            assert vary(image).size == (16, 16)


@pytest.mark.parametrize("policy", ["rnad-m9", "rand-x9"])
def test_an_unknown_policy_is_named(policy):
    with pytest.raises(UserError, match="timm does not know"):
        rand_augment(policy, (16, 16), PLAIN)
