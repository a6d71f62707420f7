import dataclasses
import gzip
import hashlib
import lzma
import os
import struct

import numpy as np
import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.data.vision import FashionMNIST, fashion_mnist
from polymamba.data.vision.fashion_mnist import read_idx

COUNTS = {"train": 60, "t10k": 20}


def idx(array):
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def contents(monkeypatch):
    """Small files in the layout of the originals, and the source's checksums made to fit."""
    made = {}
    for split, count in COUNTS.items():
        images = np.arange(count * 28 * 28).reshape(count, 28, 28) % 251
        made[f"{split}-images-idx3-ubyte"] = idx(images.astype(np.uint8))
        made[f"{split}-labels-idx1-ubyte"] = idx((np.arange(count) % 10).astype(np.uint8))
    content = tuple((name, hashlib.sha256(made[name]).hexdigest()) for name, _ in FashionMNIST.source.content)
    monkeypatch.setattr(FashionMNIST, "source", dataclasses.replace(FashionMNIST.source, content=content))
    monkeypatch.setattr(fashion_mnist, "COUNTS", COUNTS)
    return made


def write(folder, contents, suffix=".gz"):
    folder.mkdir(parents=True, exist_ok=True)
    pack = {".gz": gzip.compress, ".xz": lzma.compress, "": bytes}[suffix]
    for name, content in contents.items():
        (folder / f"{name}{suffix}").write_bytes(pack(content))


@pytest.mark.parametrize("suffix", [".gz", ".xz", ""])
@pytest.mark.parametrize("folder", ["vision/fashion_mnist", "FashionMNIST/raw", "fashion_mnist", ""])
def test_layouts(tmp_path, contents, folder, suffix):
    write(tmp_path / folder, contents, suffix)
    data = FashionMNIST(root=str(tmp_path), val_fraction=0.2)
    told = data.describe()
    assert (told.counts["train"], told.counts["val"], told.counts["test"], told.for_model["model_size"]) == (
        50,
        10,
        20,
        "micro",
    )
    images, labels = next(iter(data.test_dataloader()))
    assert images.shape == (20, 1, 28, 28)
    assert labels.tolist() == [i % 10 for i in range(20)]
    pixels = torch.arange(20 * 28 * 28).view(20, 1, 28, 28) % 251 / 255
    torch.testing.assert_close(images, (pixels - 0.2860) / 0.3530)


def test_the_environment_says_where(tmp_path, contents, monkeypatch):
    write(tmp_path, contents)
    monkeypatch.setenv("POLYMAMBA_DATA", str(tmp_path))
    FashionMNIST().verify()


def test_the_missing_is_downloaded(tmp_path, contents, monkeypatch):
    asked = []
    monkeypatch.setattr(fashion_mnist, "fetch", lambda file, folder: asked.append((file.name, folder)))
    write(tmp_path, {name: made for name, made in contents.items() if "t10k" in name})
    FashionMNIST(root=tmp_path).prepare_data()
    folder = tmp_path / "vision" / "fashion_mnist"
    assert asked == [("train-images-idx3-ubyte.gz", folder), ("train-labels-idx1-ubyte.gz", folder)]


def test_a_missing_file_is_named(tmp_path, contents):
    with pytest.raises(UserError, match="train-images-idx3-ubyte is not there"):
        FashionMNIST(root=tmp_path).setup()


@pytest.mark.parametrize("suffix", [".gz", ".xz"])
def test_a_file_cut_off_is_named(tmp_path, contents, suffix):
    write(tmp_path, contents, suffix)
    path = tmp_path / f"t10k-images-idx3-ubyte{suffix}"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=f"t10k-images-idx3-ubyte{suffix} is damaged or cut off"):
        FashionMNIST(root=tmp_path).verify()


@pytest.mark.parametrize("suffix", [".gz", ".xz"])
def test_a_file_that_is_not_packed_is_named(tmp_path, contents, suffix):
    write(tmp_path, contents, suffix)
    (tmp_path / f"train-labels-idx1-ubyte{suffix}").write_bytes(b"<html>not found</html>")
    with pytest.raises(UserError, match=f"train-labels-idx1-ubyte{suffix} is damaged"):
        FashionMNIST(root=tmp_path).verify()


def test_a_changed_pixel_is_found(tmp_path, contents):
    changed = bytearray(contents["t10k-images-idx3-ubyte"])
    changed[100] ^= 1
    write(tmp_path, {**contents, "t10k-images-idx3-ubyte": bytes(changed)})
    with pytest.raises(UserError, match=r"t10k-images-idx3-ubyte\.gz .*wrong checksum") as caught:
        FashionMNIST(root=tmp_path).verify()
    assert hashlib.sha256(changed).hexdigest() in caught.value.given


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda content: content[:7], "is cut off in its header"),
        (lambda content: b"\0\0\x09\1" + content[4:], "is no IDX file of this kind"),
        (lambda content: content[:4] + struct.pack(">I", 6) + content[8:], "another number of values"),
        (lambda content: content[:-1], "wrong length"),
        (lambda content: content + b"\0", "wrong length"),
    ],
)
def test_wrong_idx_files(tmp_path, change, problem):
    content = idx(np.arange(5, dtype=np.uint8))
    assert read_idx(tmp_path / "labels", content, (5,)).tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(UserError, match=problem) as caught:
        read_idx(tmp_path / "labels", change(content), (5,))
    assert str(tmp_path / "labels") in str(caught.value)
    assert caught.value.given
    assert caught.value.allowed


@pytest.mark.skipif("POLYMAMBA_DATA" not in os.environ, reason="needs the real files: set POLYMAMBA_DATA")
def test_real_files():
    told = FashionMNIST().describe()
    assert tuple(told.counts.values()) == (54_000, 6_000, 10_000)
