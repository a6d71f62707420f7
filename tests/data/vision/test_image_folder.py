import itertools
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from polymamba.core.errors import UserError
from polymamba.data.loading import Loading
from polymamba.data.vision import ImageFolder
from polymamba.data.vision.augmentation import Augmentation

COLOURS = {"blue": (0, 0, 255), "red": (255, 0, 0)}


def draw(path, colour, size=(40, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def fill(folder, count=10, suffix="png"):
    for name, colour in COLOURS.items():
        for i in range(count):
            draw(folder / name / f"{i:02}.{suffix}", colour, (40 + i, 30))
    return folder


def folder_data(root, **options):
    loading = Loading(
        **{"batch_size": 4, **{key: options.pop(key) for key in ("batch_size", "seed", "workers") if key in options}}
    )
    augmentation = Augmentation(options.pop("augmentation", "light"))
    return ImageFolder(root=str(root), loading=loading, augmentation=augmentation, **{"image_size": 32, **options})


def test_split_folders(tmp_path):
    for split, count in (("train", 10), ("val", 3), ("test", 2)):
        fill(tmp_path / split, count, "jpg")
    data = folder_data(tmp_path)
    told = data.describe()
    assert tuple(told.counts.values()) == (20, 6, 4)
    assert told.tested == "the test part"
    assert told.for_model.items() >= {"classes": ["blue", "red"], "image_size": [32, 32], "channels": 3}.items()
    assert (told.for_model["model_size"], told.name) == ("micro", "image_folder")
    images, labels = next(iter(data.test_dataloader()))
    assert images.shape == (4, 3, 32, 32)
    assert labels.tolist() == [0, 0, 1, 1]
    mean, std = (torch.tensor(told.for_model[name]) for name in ("mean", "std"))
    for image, label in zip(images, labels, strict=True):
        colour = torch.tensor(list(COLOURS.values())[label]) / 255
        torch.testing.assert_close(image.mean((1, 2)), (colour - mean) / std, atol=0.02, rtol=0)


def test_flat_folders_are_split_the_same_way_everywhere(tmp_path):
    fill(tmp_path / "one", 20)
    shutil.copytree(tmp_path / "one", tmp_path / "other")
    splits = {}
    for name in ("one", "other"):
        data = folder_data(tmp_path / name)
        data.setup()
        splits[name] = {
            split: [str(path.relative_to(tmp_path / name)) for path in data.splits[split].images]
            for split in data.splits
        }
        assert [len(split) for split in data.splits.values()] == [28, 4, 8]
        assert data.splits["val"].labels.bincount().tolist() == [2, 2]
    assert splits["one"] == splits["other"]
    assert len({path for paths in splits["one"].values() for path in paths}) == 40


def test_no_val_and_no_test_folder(tmp_path, caplog):
    fill(tmp_path / "train")
    told = folder_data(tmp_path, val_fraction=0.2).describe()
    assert tuple(told.counts.values()) == (16, 4, 4)
    assert told.tested == "the validation images: there is no folder for test"
    assert "no test folder" in caplog.text


def test_default_size_asks_for_the_tiny_model(tmp_path):
    fill(tmp_path)
    assert ImageFolder(root=str(tmp_path)).describe().for_model["model_size"] == "tiny"


@pytest.mark.parametrize("augmentation", ["none", "light", "standard"])
@pytest.mark.parametrize("channels", [1, 3])
def test_augmentation_is_a_function_of_seed_and_epoch(tmp_path, augmentation, channels):
    fill(tmp_path)
    for number, path in enumerate(sorted(tmp_path.rglob("*.png"))):
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (40, 50, 3), np.uint8)).save(path)

    def epochs(seed):
        loader = folder_data(tmp_path, augmentation=augmentation, channels=channels, seed=seed).train_dataloader()
        return [torch.cat([images for images, _ in loader]) for _ in range(2)]

    first, again, other = epochs(0), epochs(0), epochs(1)
    assert first[0].shape == (12, channels, 32, 32)
    assert torch.equal(torch.stack(first), torch.stack(again))
    assert not torch.equal(first[0], other[0])
    assert first[0].isfinite().all()


@pytest.mark.slow
def test_workers_give_the_same_images(tmp_path):
    fill(tmp_path)
    alone, shared = (folder_data(tmp_path, augmentation="standard", workers=n).train_dataloader() for n in (0, 2))
    for _ in range(2):
        for (images, labels), (others, same) in zip(alone, shared, strict=True):
            assert torch.equal(images, others)
            assert torch.equal(labels, same)


BROKEN = {
    "cut off": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "text": lambda content: b"<html>not found</html>",
}


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_broken_images_are_all_named(tmp_path, how, suffix):
    fill(tmp_path, suffix=suffix)
    bad = [tmp_path / "red" / f"03.{suffix}", tmp_path / "blue" / f"07.{suffix}"]
    for path in bad:
        path.write_bytes(BROKEN[how](path.read_bytes()))
    data = folder_data(tmp_path, batch_size=1)
    with pytest.raises(UserError, match="2 of 20 images") as caught:
        data.verify()
    assert all(str(path) in str(caught.value) for path in bad)
    samples = itertools.chain(data.train_dataloader(), data.val_dataloader(), data.test_dataloader())
    with pytest.raises(UserError, match="Broken image") as caught:
        list(samples)
    assert any(str(path) in str(caught.value) for path in bad)


def test_whole_images_pass(tmp_path):
    fill(tmp_path)
    (tmp_path / "red" / "notes.txt").write_text("not an image")
    (tmp_path / "red" / ".hidden.png").write_text("nor this")
    Image.new("L", (9, 9)).save(tmp_path / "red" / "grey.png")
    Image.new("RGBA", (9, 9)).save(tmp_path / "red" / "clear.png")
    Image.new("P", (9, 9)).save(tmp_path / "red" / "palette.gif")
    data = folder_data(tmp_path)
    data.verify()
    assert sum(len(split) for split in data.load().values()) == 23


def nothing(root):
    pass


def one_class(root):
    draw(root / "red" / "a.png", "red")


def empty_class(root):
    fill(root)
    (root / "green").mkdir()


def loose(root):
    fill(root)
    draw(root / "stray.png", "red")


def no_train(root):
    fill(root / "val")
    fill(root / "other")


def unknown_class(root):
    fill(root / "train")
    fill(root / "val")
    draw(root / "val" / "green" / "a.png", "green")


def absent_class(root):
    fill(root / "train")
    fill(root / "val")
    shutil.rmtree(root / "val" / "red")


def empty_val_class(root):
    fill(root / "train")
    fill(root / "val")
    shutil.rmtree(root / "val" / "red")
    (root / "val" / "red").mkdir()


def two_vals(root):
    for name in ("train", "val", "valid"):
        fill(root / name)


def too_few(root):
    fill(root, 2)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (nothing, "has no classes"),
        (one_class, "only one class"),
        (empty_class, "green holds no images"),
        (loose, "stray.png lies in no class's folder"),
        (no_train, "a folder for val but none for train"),
        (unknown_class, "val/green is a class that train does not have"),
        (absent_class, "val lacks the class red"),
        (empty_val_class, "val/red holds no images"),
        (two_vals, "more than one folder for val"),
        (too_few, "no val samples"),
    ],
)
def test_wrong_folders_are_named(tmp_path, make, named):
    make(tmp_path)
    with pytest.raises(UserError, match=named):
        folder_data(tmp_path).setup()


def test_root_has_to_be_there(tmp_path):
    with pytest.raises(UserError, match="needs a folder"):
        ImageFolder()
    with pytest.raises(UserError, match="no such folder"):
        folder_data(tmp_path / "nowhere").setup()


@pytest.mark.parametrize(("names", "counts"), [(["val"], {"val": 6, "test": 6}), (["test"], {"test": 6})])
def test_without_a_folder_for_train(tmp_path, caplog, names, counts):
    for name in names:
        fill(tmp_path / name, 3)
    data = folder_data(tmp_path)
    told = data.describe()
    assert (told.counts, data.samples("train")) == (counts, 0)
    assert told.tested.startswith("the validation images" if names == ["val"] else "the test part")
    assert "can only be tested on" in caplog.text
    assert torch.cat([labels for _, labels in data.test_dataloader()]).tolist() == [0] * 3 + [1] * 3
    with pytest.raises(UserError, match="no train samples"):
        data.train_dataloader()


def test_the_share_that_is_tested(tmp_path):
    """Against timm's own evaluation transform, for a run's data and for photos from elsewhere."""
    from timm.data import create_transform

    noise = np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8)
    for split, label in itertools.product(("train", "test"), COLOURS):
        for i in range(4):
            path = tmp_path / split / label / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise).save(path)
    for crop in (None, 0.5, 1.0):
        data = folder_data(tmp_path, crop=crop, val_fraction=0.5)
        wanted = create_transform((3, 32, 32), crop_pct=crop or 0.875, interpolation="bicubic")(Image.fromarray(noise))
        for images, _ in (next(iter(data.test_dataloader())), (data.photos().prepare([Image.fromarray(noise)]), None)):
            torch.testing.assert_close(images[0], wanted, rtol=1e-5, atol=1e-5)
    kept = ImageFolder.reading({"crop": 0.5, "mean": [0.1] * 3, "std": None})
    assert (kept["crop"], kept["mean"], kept["std"]) == (0.5, [0.1] * 3, [0.229, 0.224, 0.225])


def test_own_mean_and_std(tmp_path):
    fill(tmp_path)
    told = folder_data(tmp_path, mean=[0.5] * 3, std=[0.25] * 3).describe()
    assert (told.for_model["mean"], told.for_model["std"]) == ([0.5] * 3, [0.25] * 3)
    with pytest.raises(UserError, match="go together"):
        folder_data(tmp_path, mean=[0.5] * 3)
    with pytest.raises(UserError, match="does not fit"):
        folder_data(tmp_path, mean=[0.5] * 3, std=[0.25, 0.25, 0])
