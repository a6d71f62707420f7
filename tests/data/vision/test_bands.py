"""Images of several bands: Wald's protocol against its formula, crops, the user's own files and what is wrong with them."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from polymamba.core.errors import UserError
from polymamba.data.loading import Loading
from polymamba.data.vision import BandsFolder, DrawnBands
from polymamba.data.vision.band_files import read_bands
from polymamba.data.vision.bands import degraded

SMALL = {"train": 3, "val": 1, "test": 2, "side": (30, 46), "image_size": (16, 24), "loading": Loading(batch_size=2)}


@pytest.fixture
def drawn():
    data = DrawnBands(**SMALL)
    data.setup()
    return data


def saved(folder, name, values):
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"{name}.npy", values)
    return values


def values(seed: int, shape=(4, 20, 24), kind=np.float32, white=1.0):
    return (white * np.random.default_rng(seed).uniform(0, 1, shape)).astype(kind)


@pytest.mark.parametrize(("ratio", "gain"), [(4, 0.3), (2, 0.2), (3, 0.9)])
def test_a_coarse_pixel_is_the_gaussian_mean_around_its_block(ratio, gain):
    """Weights written out; beyond the border the last values go on."""
    image = torch.from_numpy(values(1, (2, 4 * ratio, 5 * ratio))).double()
    deviation = ratio / math.pi * math.sqrt(-2 * math.log(gain))
    reach = max(0, math.ceil(3 * deviation - ratio / 2))
    found = degraded(image, ratio, gain)
    assert found.shape == (2, 4, 5)
    for row, column in ((0, 0), (1, 2), (3, 4)):
        weights, total = 0.0, torch.zeros(2, dtype=torch.float64)
        for y in range(ratio * row - reach, ratio * (row + 1) + reach):
            for x in range(ratio * column - reach, ratio * (column + 1) + reach):
                far = (y - (ratio * row + (ratio - 1) / 2)) ** 2 + (x - (ratio * column + (ratio - 1) / 2)) ** 2
                weight = math.exp(-far / (2 * deviation**2))
                weights += weight
                total += weight * image[:, min(max(y, 0), 4 * ratio - 1), min(max(x, 0), 5 * ratio - 1)]
        torch.testing.assert_close(found[:, row, column], total / weights, rtol=1e-6, atol=0)


def test_the_blur_has_the_gain_of_the_sensor():
    """Of a wave of the highest frequency that the coarse grid holds, 1 / (2 ratio); sampled where it is strongest."""
    x = torch.arange(400, dtype=torch.float64)
    wave = torch.cos(math.pi * (x - 1.5) / 4).expand(1, 4, 400)
    assert float(degraded(wave, 4, 0.3)[0, 0, 20:-20].abs().max()) == pytest.approx(0.3, abs=0.01)


def test_a_batch_is_coarse_panchromatic_and_true(drawn):
    ms, pan, truth = drawn.load_batch("train", 1, np.array([0, 2]))
    assert (ms.shape, pan.shape, truth.shape) == ((2, 4, 4, 6), (2, 1, 16, 24), (2, 4, 16, 24))
    assert 0 <= truth.min() < 0.1 < truth.max() <= 1
    weights = torch.tensor([0.1, 0.3, 0.35, 0.25]).view(4, 1, 1)
    torch.testing.assert_close(pan, (weights * truth).sum(1, keepdim=True))
    assert all(
        torch.equal(a[1:], b)
        for a, b in zip((ms, pan, truth), drawn.load_batch("train", 1, np.array([2])), strict=True)
    )
    assert not torch.equal(truth[:1], drawn.load_batch("train", 2, np.array([0]))[2])
    whole = drawn.load_batch("test", 0, np.array([1]))
    assert [tuple(each.shape[1:]) for each in whole] == [(4, 7, 11), (1, 28, 44), (4, 28, 44)]
    torch.testing.assert_close(whole[0][0], degraded(whole[2][0], 4, 0.3))
    assert [len(each) for each in drawn.example(3)] == [3, 3, 3]


def test_a_crop_is_that_of_the_whole_image(drawn):
    """Coarse pixels see beyond the crop; mirror images do so too."""
    whole = {index: drawn._cut(drawn.splits["train"][index], (0.5, 0.5), None) for index in range(3)}
    flips = set()
    for epoch in range(12):
        for index in range(3):
            ms, _, truth = (each[0] for each in drawn.load_batch("train", epoch, np.array([index])))
            coarse, _, fine = whole[index]
            places = [
                (axes, row, column)
                for axes in ([], [1], [2], [1, 2])
                for row in range(0, 13, 4)
                for column in range(0, 21, 4)
                if torch.equal(truth.flip(axes), fine[:, row : row + 16, column : column + 24])
            ]
            ((axes, row, column),) = places
            expected = coarse[:, row // 4 : row // 4 + 4, column // 4 : column // 4 + 6]
            torch.testing.assert_close(ms.flip(axes), expected)
            flips.add(tuple(axes))
    assert len(flips) == 4


def test_scenes(drawn):
    described = drawn.describe()
    assert described.counts == {"train": 3, "val": 1, "test": 2}
    assert described.for_model["bands"] == ["blue", "green", "red", "near infrared"]
    assert (described.for_model["channels"], described.for_model["ratio"], described.for_model["model_size"]) == (
        4,
        4,
        "micro",
    )
    first, second = (drawn.splits["test"][number].read() for number in range(2))
    assert (first != second).any()
    again = DrawnBands(**SMALL)
    again.setup()
    assert np.array_equal(first, again.splits["test"][0].read())
    assert DrawnBands(**SMALL, data_seed=1).load()["test"][0].read().tolist() != first.tolist()


def test_sizes_and_weights_that_do_not_fit():
    with pytest.raises(UserError, match=r"data\.image_size does not fit") as error:
        DrawnBands(image_size=30)
    assert error.value.do == "data.image_size=28"
    with pytest.raises(UserError, match=r"data\.ratio"):
        DrawnBands(ratio=1)
    with pytest.raises(UserError, match=r"data\.weights does not fit"):
        DrawnBands(**SMALL, weights=[1, 1]).setup()


def test_arrays_of_either_order_in_a_folder(tmp_path):
    given = {f"s{number}": values(number, (4, 20, 24 + number)) for number in range(10)}
    for number, (name, each) in enumerate(given.items()):
        saved(tmp_path, name, each if number % 2 else each.transpose(1, 2, 0))
    (tmp_path / "notes.txt").write_text("no image")
    data = BandsFolder(root=str(tmp_path), image_size=16, crops=2)
    assert data.describe().counts == {"train": 14, "val": 1, "test": 2}
    for scene in [*data.splits["test"], *data.splits["train"]]:
        assert np.array_equal(scene.read(), given[scene.name.removesuffix(".npy")])
    whole = data.load_batch("test", 0, np.array([0]))[2][0]
    assert np.array_equal(whole, given[data.splits["test"][0].name.removesuffix(".npy")][..., : whole.shape[2]])


def test_pictures_and_folders_of_bands_and_parts(tmp_path):
    rgb, four = (values(n, (20, 24, n), np.uint8, 255) for n in (3, 4))
    Image.fromarray(rgb).save(tmp_path / "a.png")
    Image.fromarray(four, "RGBA").save(tmp_path / "b.tif")
    assert np.array_equal(read_bands(tmp_path / "a.png"), rgb.transpose(2, 0, 1))
    assert np.array_equal(read_bands(tmp_path / "b.tif"), four.transpose(2, 0, 1))
    deep = values(5, (3, 20, 24), np.uint16, 2047)
    for part in ("train", "val"):
        for number, band in enumerate(deep):
            (tmp_path / "parts" / part / "place").mkdir(parents=True, exist_ok=True)
            Image.fromarray(band).save(tmp_path / "parts" / part / "place" / f"B{number}.tif")
    with pytest.raises(UserError, match="which value is white") as error:
        BandsFolder(root=str(tmp_path / "parts"), image_size=16).setup()
    assert error.value.do == "data.white=2047"
    data = BandsFolder(root=str(tmp_path / "parts"), image_size=16, white=2047, bands=["r", "g", "b"])
    assert data.describe().for_model["white"] == 2047
    assert "validation" in data.describe().tested
    torch.testing.assert_close(data.load_batch("test", 0, np.array([0]))[2][0], torch.from_numpy(deep / 2047).float())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (values(1, (3, 20, 24)), "other bands than the first"),
        (values(1, (4, 8, 24)), "smaller than a crop"),
        (values(1, white=3.0), "beyond black and white"),
        (-values(1), "beyond black and white"),
        (np.full((4, 20, 24), np.nan, np.float32), "beyond black and white"),
        (values(1, (20, 24)), "no image of bands"),
        (values(1).astype(np.int64), "no image of bands"),
        (None, "Broken array"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, wrong, message):
    for number in range(4):
        saved(tmp_path, f"s{number}", values(number))
    if wrong is None:
        (tmp_path / "s9.npy").write_bytes(b"no array")
    else:
        saved(tmp_path, "s9", wrong)
    with pytest.raises(UserError, match=message) as error:
        BandsFolder(root=str(tmp_path), image_size=16).setup()
    assert "s9.npy" in str(error.value)


def test_folders_that_are_not_there_or_hold_nothing(tmp_path):
    with pytest.raises(UserError, match="needs a folder"):
        BandsFolder().setup()
    with pytest.raises(UserError, match="no such folder"):
        BandsFolder(root=str(tmp_path / "gone")).setup()
    with pytest.raises(UserError, match="holds no images"):
        BandsFolder(root=str(tmp_path)).setup()
    Image.fromarray(values(1, (20, 24), np.uint8, 255)).convert("P").save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a\.png is no image of bands"):
        BandsFolder(root=str(tmp_path)).setup()
    (tmp_path / "b").mkdir()
    for number, size in enumerate((20, 21)):
        Image.fromarray(values(1, (size, 24), np.uint8, 255)).save(tmp_path / "b" / f"{number}.png")
    with pytest.raises(UserError, match=r"1\.png is no band of this image"):
        read_bands(tmp_path / "b")
