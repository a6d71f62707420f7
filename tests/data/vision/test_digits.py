import sys

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from polymamba.core.errors import UserError
from polymamba.data.loading import Loading
from polymamba.data.vision import Digits, digits
from polymamba.data.vision.augmentation import Augmentation


def test_pixels_and_labels_are_scikit_learns():
    data = Digits()
    data.setup()
    images = torch.cat([split.images for split in data.splits.values()]).flatten(1).double().numpy()
    labels = torch.cat([split.labels for split in data.splits.values()]).numpy()
    original = load_digits()
    ours = sorted((*np.rint(row * 16 / 255).astype(int), label) for row, label in zip(images, labels, strict=True))
    assert ours == sorted((*row.astype(int), label) for row, label in zip(original.data, original.target, strict=True))


def test_describe():
    told = Digits().describe()
    assert (told.name, told.for_model["model_size"]) == ("digits", "micro")
    assert tuple(told.counts.values()) == (1258, 179, 360)
    assert (told.for_model["channels"], told.for_model["image_size"], told.for_model["num_classes"]) == (1, [8, 8], 10)
    assert told.for_model["classes"] == list("0123456789")
    assert told.line == "digits: 1,258 train, 179 val, 360 test; 1×8×8, 10 classes"
    assert told.licence == "CC BY 4.0"


def test_split_is_stratified_and_fixed():
    one, other, moved = (
        Digits(loading=Loading(batch_size=64, seed=1)),
        Digits(loading=Loading(batch_size=64, seed=2)),
        Digits(split_seed=1),
    )
    for data in (one, other, moved):
        data.setup()
    for name in ("train", "val", "test"):
        assert torch.equal(one.splits[name].images, other.splits[name].images)
        counts = torch.bincount(one.splits[name].labels, minlength=10)
        assert counts.max() - counts.min() <= 8
    assert not torch.equal(one.splits["test"].images, moved.splits["test"].images)


def test_batches():
    data = Digits(loading=Loading(batch_size=32))
    images, labels = next(iter(data.train_dataloader()))
    assert (images.shape, images.dtype) == ((32, 1, 8, 8), torch.float32)
    assert (labels.shape, labels.dtype) == ((32,), torch.int64)
    assert sum(len(labels) for _, labels in data.test_dataloader()) == 360
    whole = torch.cat([images for images, _ in Digits(augmentation=Augmentation("none")).train_dataloader()])
    assert abs(whole.mean()) < 0.02
    assert abs(whole.std() - 1) < 0.02


def test_only_training_images_are_varied():
    def first(loader):
        return next(iter(loader))[0]

    light, plain = Digits(), Digits(augmentation=Augmentation("none"))
    assert not torch.equal(first(light.train_dataloader()), first(plain.train_dataloader()))
    assert torch.equal(first(light.val_dataloader()), first(plain.val_dataloader()))


def test_limit_size_and_channels():
    data = Digits(image_size=[16, 12], channels=3, loading=Loading(limit=20, batch_size=7))
    told = data.describe()
    assert set(told.counts.values()) == {20}
    assert data.splits["train"].labels.bincount().tolist() == [2] * 10
    assert next(iter(data.train_dataloader()))[0].shape == (7, 3, 16, 12)
    assert len(told.for_model["mean"]) == len(told.for_model["std"]) == 3


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"val_fraction": 0}, "val_fraction"),
        ({"test_fraction": 1.5}, "test_fraction"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "nothing to train on"),
        ({"image_size": 0}, "image_size"),
        ({"image_size": [8, 8, 8]}, "image_size"),
        ({"channels": 2}, "channels"),
    ],
)
def test_wrong_settings_are_named(wrong, message):
    with pytest.raises(UserError, match=message):
        Digits(**wrong)


def test_a_changed_file_is_named(tmp_path, monkeypatch):
    path = tmp_path / "digits.csv"
    path.write_text("0,1,2\n")
    monkeypatch.setattr(digits, "digits_file", lambda: path)
    with pytest.raises(UserError, match=r"digits\.csv does not hold what was published"):
        Digits().verify()


@pytest.mark.parametrize("slow", ["sklearn.datasets", "timm.data", "PIL.Image"])
def test_reads_without_importing_slow_packages(monkeypatch, slow):
    monkeypatch.setitem(sys.modules, slow, None)
    assert len(next(iter(Digits().train_dataloader()))[1]) == 64


def test_other_images_are_made_as_large_as_those_learnt_from():
    assert Digits.reading({"image_size": None, "channels": None}) == {
        "image_size": [8, 8],
        "channels": 1,
        "mean": [0.3052],
        "std": [0.3755],
        "loading": {},
    }
    assert Digits.reading({"image_size": [16, 12], "channels": 3})["image_size"] == [16, 12]
