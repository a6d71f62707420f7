"""Images in WebDataset shards: found, labelled, read as the files would be, and what is wrong with them named."""

import io
import json
import os
import tarfile
import time

import numpy as np
import pytest
import torch
from PIL import Image

from polymamba.core.errors import UserError
from polymamba.data.loading import Loading
from polymamba.data.vision import ImageFolder, WebDataset
from polymamba.data.vision.augmentation import Augmentation


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("POLYMAMBA_CACHE", str(tmp_path / "cache"))


def picture(*key):
    pixels = np.random.default_rng(key).integers(0, 255, (30, 40, 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def write(path, files):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def sample(number, label, kind="cls"):
    said = str(label) if kind == "cls" else json.dumps({"label": label, "width": 40})
    return [(f"{number:04}.png", picture(number)), (f"{number:04}.{kind}", said.encode())]


def shard(path, numbers, kind="cls", classes=3):
    write(path, [file for number in numbers for file in sample(number, number % classes, kind)])


def shards(root, **options):
    usual = {"image_size": 16, "loading": Loading(batch_size=4), "augmentation": Augmentation("none")}
    return WebDataset(root=str(root), **{**usual, **options})


@pytest.mark.parametrize("kind", ["cls", "json"])
@pytest.mark.parametrize(
    "name", ["imagenet1k-{split}-{number:04}.tar", "{split}/{number:06}.tar", "parts/{split}_shards/a-{number}.tar"]
)
def test_samples_are_those_of_a_folder(tmp_path, kind, name):
    """The same images in shards and in folders: the same batches, in order, whatever holds them."""
    for split, word, count in (("train", "train", 12), ("val", "validation", 6), ("test", "test", 3)):
        for part in range(2):
            numbers = range(100 * part, 100 * part + count)
            shard(tmp_path / "shards" / name.format(split=word, number=part), numbers, kind)
            for number in numbers:
                path = tmp_path / "folder" / split / str(number % 3) / f"{number:04}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(picture(number))
    data, folder = shards(tmp_path / "shards"), ImageFolder(
        root=str(tmp_path / "folder"), image_size=16, loading=Loading(batch_size=4), augmentation=Augmentation("none")
    )  # fmt: skip
    told = data.describe()
    assert told.counts == folder.describe().counts == {"train": 24, "val": 12, "test": 6}
    assert told.for_model == folder.describe().for_model
    for split in ("train", "val", "test"):
        found = {}
        for each in (data, folder):
            images, labels = each.load_batch(split, 0, np.arange(each.samples(split)))
            found[each.name] = sorted(
                (int(label), image.sum().item()) for image, label in zip(images, labels, strict=True)
            )
        assert found["webdataset"] == found["image_folder"]
    assert [len(labels) for _, labels in data.train_dataloader()] == [4] * 6
    data.verify()


def test_worker_processes_and_limits(tmp_path):
    shard(tmp_path / "train-0.tar", range(12))
    shard(tmp_path / "val-0.tar", range(6))
    batches = [
        [*shards(tmp_path, loading=Loading(batch_size=4, workers=workers)).train_dataloader()] for workers in (0, 2)
    ]
    for (images, labels), (others, same) in zip(*batches, strict=True):
        assert torch.equal(images, others)
        assert torch.equal(labels, same)
    assert shards(tmp_path, loading=Loading(batch_size=2, limit=3)).describe().counts == {
        "train": 3,
        "val": 3,
        "test": 3,
    }


def test_missing_splits(tmp_path, caplog):
    shard(tmp_path / "all" / "000.tar", range(60))
    told = shards(tmp_path / "all").describe()
    assert (told.counts, told.tested) == ({"train": 42, "val": 6, "test": 12}, "the test part (data.test_fraction)")
    shard(tmp_path / "some" / "train-0.tar", range(60))
    told = shards(tmp_path / "some").describe()
    assert told.counts == {"train": 54, "val": 6, "test": 6}
    assert told.tested.startswith("the validation images")
    shard(tmp_path / "some" / "0001.tar", range(60))
    shards(tmp_path / "some").describe()
    assert "0001.tar" in caplog.text
    shard(tmp_path / "none" / "val-0.tar", range(6))
    assert shards(tmp_path / "none").describe().counts == {"val": 6, "test": 6}
    assert "can only be tested on" in caplog.text


def test_names_of_the_classes(tmp_path):
    shard(tmp_path / "train-0.tar", range(30))
    assert shards(tmp_path).describe().for_model["classes"] == ["0", "1", "2"]
    (tmp_path / "classes.txt").write_text("cat\ndog\nfox\nowl\n")
    assert shards(tmp_path).describe().for_model["num_classes"] == 4
    (tmp_path / "two.txt").write_text("cat\ndog\n")
    with pytest.raises(UserError, match="is of no class") as caught:
        shards(tmp_path, classes=str(tmp_path / "two.txt")).describe()
    assert (caught.value.given, caught.value.allowed) == (2, "0 to 1")
    with pytest.raises(UserError, match="cannot read the class names"):
        shards(tmp_path, classes=str(tmp_path / "none.txt")).describe()


def test_the_places_are_kept_until_the_shard_changes(tmp_path):
    path = tmp_path / "train-0.tar"
    shard(path, range(30))
    first = shards(tmp_path).load()["train"].labels
    kept = list((tmp_path / "cache" / "shards").iterdir())
    assert len(kept) == 1
    assert torch.equal(shards(tmp_path).load()["train"].labels, first)
    assert len(list((tmp_path / "cache" / "shards").iterdir())) == 1
    shard(path, range(40))
    os.utime(path, (time.time() + 5,) * 2)
    assert sum(shards(tmp_path).describe().counts[split] for split in ("train", "val")) == 40
    assert len(list((tmp_path / "cache" / "shards").iterdir())) == 2


def test_other_files_of_a_sample(tmp_path):
    """A second image, a caption, folders and what macOS leaves are no images of their own."""
    files = []
    for number in range(20):
        extra = [
            (f"a/{number:04}.seg.png", picture(99)),
            (f"a/{number:04}.txt", b"a cat"),
            (f"a/._{number:04}.png", b"junk"),
        ]
        files += [(f"a/{name}", content) for name, content in sample(number, number % 2)] + extra
    write(tmp_path / "train-0.tar", files)
    data = shards(tmp_path, val_fraction=0.5)
    assert data.describe().counts["train"] == 10
    data.verify()
    assert {str(each).split(" in ")[0] for each in data.load()["test"].images} <= {
        f"a/{number:04}.png" for number in range(20)
    }


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([("1.cls", b"0")], "1 in .*train-0.tar has no image"),
        ([("1.png", b"x")], "1 in .*train-0.tar has no label"),
        ([("1.png", b"x"), ("1.json", b'{"width": 3}')], "has no label"),
        ([("1.png", b"x"), ("1.cls", b"cat")], "1.cls in .*train-0.tar is no label"),
        ([("1.png", b"x"), ("1.json", b'{"label": 1.5}')], "1.json in .* is no label"),
        ([("1.png", b"x"), ("1.json", b"{")], "1.json in .* is no label"),
        ([("1.png", b"x"), ("1.cls", b"-1")], "is of no class"),
        ([], "holds no samples"),
    ],
)
def test_wrong_shards_are_named(tmp_path, files, said):
    write(tmp_path / "train-0.tar", files)
    with pytest.raises(UserError, match=said):
        shards(tmp_path).describe()


def test_wrong_files_are_named(tmp_path):
    with pytest.raises(UserError, match="needs a folder"):
        WebDataset()
    with pytest.raises(UserError, match="no such folder"):
        shards(tmp_path / "nowhere").describe()
    with pytest.raises(UserError, match="no shards in"):
        shards(tmp_path).describe()
    path = tmp_path / "train-0.tar"
    shard(path, range(30))
    content = path.read_bytes()
    for broken in (b"no tar at all" * 99, content[:5000], content[:-10240] + b"x", content[: 512 * 7]):
        path.write_bytes(broken)
        with pytest.raises(UserError, match=r"Broken shard: .*train-0.tar"):
            shards(tmp_path).describe()
    with tarfile.open(path, "w:gz") as archive:
        archive.add(__file__, "1.cls")
    with pytest.raises(UserError, match="Broken shard"):
        shards(tmp_path).describe()


def test_a_broken_image_is_named(tmp_path):
    files = [file for number in range(30) for file in sample(number, number % 3)]
    files[2] = (files[2][0], files[2][1][:50])
    write(tmp_path / "train-0.tar", files)
    with pytest.raises(UserError, match="1 of 30 images") as caught:
        shards(tmp_path).verify()
    assert f"0001.png in {tmp_path / 'train-0.tar'}" in caught.value.given
