import dataclasses
import hashlib
import io
import lzma
import os
import pickle
import struct
import tarfile

import numpy as np
import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.data.loading import Loading
from polymamba.data.vision import CIFAR10, cifar10
from polymamba.data.vision.augmentation import Augmentation

RECORDS = 30
NAMES = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def archive(members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


class Python2Pickler(pickle._Pickler):
    """Writes all text and bytes as Python 2 did."""

    def save_text(self, value):
        value = value.encode() if isinstance(value, str) else value
        self.write(pickle.BINSTRING + struct.pack("<i", len(value)) + value)

    dispatch = pickle._Pickler.dispatch | {str: save_text, bytes: save_text}


def pickled(batch):
    """A batch as the Python archive holds it."""
    buffer = io.BytesIO()
    table = {"labels": batch[:, 0].tolist(), "data": np.ascontiguousarray(batch[:, 1:])}
    Python2Pickler(buffer, protocol=2).dump(table)
    return buffer.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


@pytest.fixture
def batches(monkeypatch):
    """Small batches in the layout of the originals, and the source's checksums made to fit."""
    monkeypatch.setattr(cifar10, "RECORDS", RECORDS)
    made = {}
    for number, name in enumerate(NAMES):
        pixels = (np.arange(RECORDS * 3072).reshape(RECORDS, 3072) * (number + 1)) % 253
        made[name] = np.column_stack([np.arange(RECORDS) % 10, pixels]).astype(np.uint8)
    binary = archive({f"cifar-10-batches-bin/{name}.bin": batch.tobytes() for name, batch in made.items()})
    python = archive({f"cifar-10-batches-py/{name}": pickled(batch) for name, batch in made.items()})
    content = ((cifar10.PYTHON_ARCHIVE, sha256(python)),)
    content += tuple((f"{name}.bin", sha256(batch.tobytes())) for name, batch in made.items())
    files = (dataclasses.replace(cifar10.FULL.files[0], sha256=sha256(binary)),)
    monkeypatch.setattr(cifar10, "FULL", dataclasses.replace(cifar10.FULL, files=files, content=content))
    return made, binary, python


@pytest.fixture
def subset(monkeypatch):
    """The four files of the subset, with zeros for pixels."""
    arrays = {
        "x_train.npy": np.zeros((4000, 3, 32, 32), np.uint8),
        "y_train.npy": (np.arange(4000) % 10).astype(np.uint8),
        "x_test.npy": np.zeros((1000, 3, 32, 32), np.uint8),
        "y_test.npy": (np.arange(1000) % 10).astype(np.uint8),
    }
    made = {}
    for name, array in arrays.items():
        buffer = io.BytesIO()
        np.save(buffer, array)
        made[name] = buffer.getvalue()
    content = tuple((name, sha256(file)) for name, file in made.items())
    monkeypatch.setattr(cifar10, "CIFAR10_SUBSET", dataclasses.replace(cifar10.CIFAR10_SUBSET, content=content))
    return made


def write(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


@pytest.mark.parametrize("kind", ["binary", "python", "folder"])
@pytest.mark.parametrize("place", ["vision/cifar10", "cifar10", ""])
def test_layouts(tmp_path, batches, kind, place):
    made, binary, python = batches
    if kind == "folder":
        files = {f"{name}.bin": batch.tobytes() for name, batch in made.items()}
        write(tmp_path / place / "cifar-10-batches-bin", files)
    else:
        write(tmp_path / place, {f"cifar-10-{kind}.tar.gz": binary if kind == "binary" else python})
    data = CIFAR10(root=tmp_path, augmentation=Augmentation("none"), loading=Loading(batch_size=RECORDS))
    told = data.describe()
    assert told.counts == {"train": 130, "val": 20, "test": RECORDS}
    assert ("4,000" in told.title) is False
    images, labels = next(iter(data.test_dataloader()))
    assert labels.tolist() == made["test_batch"][:, 0].tolist()
    pixels = torch.from_numpy(made["test_batch"][:, 1:]).view(-1, 3, 32, 32) / 255
    mean, std = (torch.tensor(told.for_model[name]).view(3, 1, 1) for name in ("mean", "std"))
    torch.testing.assert_close(images, (pixels - mean) / std)
    data.verify()


def test_the_subset_says_so(tmp_path, subset, caplog):
    files = {name if name.startswith("y") else f"{name}.xz": made for name, made in subset.items()}
    files = {name: lzma.compress(made) if name.endswith("xz") else made for name, made in files.items()}
    write(tmp_path / "vision" / "cifar10_subset", files)
    told = CIFAR10(root=tmp_path).describe()
    assert told.counts == {"train": 3600, "val": 400, "test": 1000}
    assert ("4,000" in told.title) is True
    assert "SUBSET" in told.protocol
    assert "4,000" in told.title
    assert "SUBSET" in caplog.text


def test_all_images_come_before_the_subset(tmp_path, batches, subset):
    write(tmp_path / "cifar10_subset", subset)
    write(tmp_path, {cifar10.BINARY_ARCHIVE: batches[1]})
    assert CIFAR10(root=tmp_path).describe().title == cifar10.FULL.title
    assert CIFAR10(root=tmp_path, subset=True).describe().title != cifar10.FULL.title


def test_what_is_downloaded(tmp_path, subset, monkeypatch):
    asked = []
    monkeypatch.setattr(cifar10, "fetch", lambda file, folder: asked.append((file.name, folder)))
    CIFAR10(root=tmp_path).prepare_data()
    write(tmp_path / "cifar10_subset", subset)
    CIFAR10(root=tmp_path).prepare_data()
    assert asked == [("cifar-10-binary.tar.gz", tmp_path / "vision" / "cifar10")]
    CIFAR10(root=tmp_path, subset=False).prepare_data()
    assert len(asked) == 2


def test_a_subset_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="cannot be downloaded"):
        CIFAR10(root=tmp_path, subset=True).prepare_data()
    with pytest.raises(UserError, match="CIFAR-10 is not there"):
        CIFAR10(root=tmp_path).setup()


def test_a_changed_archive_is_named(tmp_path, batches):
    write(tmp_path, {cifar10.BINARY_ARCHIVE: batches[1] + b"\0"})
    with pytest.raises(UserError, match=r"cifar-10-binary\.tar\.gz .*wrong checksum"):
        CIFAR10(root=tmp_path).verify()


@pytest.mark.parametrize(
    ("change", "problem"),
    [(lambda content: content[:-1], "wrong length"), (lambda content: b"\1" + content[1:], "wrong checksum")],
)
def test_a_changed_batch_is_named(tmp_path, batches, change, problem):
    files = {f"{name}.bin": batch.tobytes() for name, batch in batches[0].items()}
    files["data_batch_3.bin"] = change(files["data_batch_3.bin"])
    write(tmp_path / "cifar-10-batches-bin", files)
    with pytest.raises(UserError, match=rf"data_batch_3\.bin .*{problem}"):
        CIFAR10(root=tmp_path).verify()


def test_a_subset_with_a_missing_or_changed_file(tmp_path, subset):
    write(tmp_path / "cifar10_subset", {**subset, "y_test.npy": subset["y_train.npy"]})
    with pytest.raises(UserError, match=r"y_test\.npy .*wrong checksum"):
        CIFAR10(root=tmp_path).verify()
    (tmp_path / "cifar10_subset" / "y_test.npy").unlink()
    with pytest.raises(UserError, match=r"y_test\.npy is not there"):
        CIFAR10(root=tmp_path).verify()


class Attack:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_a_pickle_cannot_call_anything(tmp_path):
    with pytest.raises(pickle.UnpicklingError, match="not allowed"):
        cifar10._unpickled(pickle.dumps({b"labels": [], b"data": Attack(tmp_path / "made")}))
    assert not (tmp_path / "made").exists()


@pytest.mark.skipif("POLYMAMBA_DATA" not in os.environ, reason="needs the real files: set POLYMAMBA_DATA")
def test_real_files():
    told = CIFAR10().describe()
    assert told.counts["test"] == (1000 if "4,000" in told.title else 10_000)
    assert told.counts["train"] + told.counts["val"] == (4000 if "4,000" in told.title else 50_000)
