"""CIFAR-10: 60,000 photographs, 32x32 pixels; or the subset of 5,000 that fits a small disk."""

from __future__ import annotations

import io
import logging
import pickle
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ...core.errors import UserError
from ...core.ranges import Fraction, Seed, Side, Size, checked
from ..download import fetch, sha256_of
from ..files import DAMAGED, check_content, data_root, find, not_there, read, replace_it
from ..loading import Loading
from .augmentation import LIGHT, Augmentation, Geometry
from .images import ImageData, Split
from .sources import CIFAR10 as FULL
from .sources import CIFAR10_SUBSET

log = logging.getLogger(__name__)

BINARY_ARCHIVE, PYTHON_ARCHIVE = "cifar-10-binary.tar.gz", "cifar-10-python.tar.gz"
TRAIN_FILES = tuple(f"data_batch_{i}" for i in range(1, 6))
RECORDS, PIXELS = 10_000, 3 * 32 * 32


class CIFAR10(ImageData):
    """Photographs of 10 kinds of things, 32x32 pixels, three channels.

    Looked for, in this order: cifar-10-binary.tar.gz, the folder cifar-10-batches-bin, cifar-10-python.tar.gz (as
    torchvision downloads it), the subset of 4,000 training and 1,000 test images as `cifar10_subset/*.npy[.xz]`. Where
    none is there, the binary archive (170 MB) is downloaded.

    Args:
        root: folder that holds the data; None: $POLYMAMBA_DATA, else `.data`. The files may lie in it directly, or in
            vision/cifar10, cifar10, vision/cifar10_subset or cifar10_subset.
        subset: True: the subset; False: all images; None: all images where they are there, else the subset where that
            is there.
        val_fraction: share of the training images that is used for validation, in each class.
        loading, augmentation, image_size, channels, split_seed, name: see `Digits`.
    """

    source = FULL
    geometry = Geometry(shift=4, flip=True)
    own_size, own_channels = (32, 32), 3
    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    classes = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

    @checked(group="data")
    def __init__(
        self,
        root: str | None = None,
        subset: bool | None = None,
        loading: Loading = Loading(batch_size=128),
        augmentation: Augmentation = LIGHT,
        image_size: Side | Sequence[Side] | None = None,
        channels: Size | None = None,
        val_fraction: Fraction = 0.1,
        split_seed: Seed = 0,
        name: str = "cifar10",
    ):
        super().__init__(name, loading, augmentation, image_size, channels, split_seed)
        self.root, self.subset = data_root(root), subset
        self.val_fraction = val_fraction

    def prepare_data(self) -> None:
        """Download the archive, where neither it nor the subset is there."""
        if self._find_full() is None and self._find_subset() is None:
            if self.subset:
                raise UserError(
                    "The CIFAR-10 subset is not there and cannot be downloaded",
                    given=f"data.root={self.root}",
                    do="set POLYMAMBA_DATA=FOLDER to the folder that holds vision/cifar10_subset, or data.subset=false",
                )
            fetch(FULL.file(BINARY_ARCHIVE), self.root / FULL.folder)

    def load(self) -> dict[str, Split]:
        """Read the images and check their sha256; see `ImageData.load`."""
        full, part = self._find_full(), self._find_subset()
        if full is None and part is None:
            raise not_there("CIFAR-10", self.root)
        if full is None:
            self.source = CIFAR10_SUBSET
            log.warning("CIFAR-10: using the SUBSET of 4,000 training and 1,000 test images in %s", part)
            samples, test = _read_subset(part)
        else:
            self.source = FULL
            samples, test = _read_full(full)
        train, val = self._divided(samples, self.val_fraction)
        return {"train": train, "val": val, "test": test}

    def _find_full(self) -> Path | None:
        if self.subset:
            return None
        folders = [self.root / folder for folder in (FULL.folder, "cifar10", "")]
        if (archive := find(folders, BINARY_ARCHIVE, [""])) is not None:
            return archive
        batch = find([folder / "cifar-10-batches-bin" for folder in folders], f"{TRAIN_FILES[0]}.bin", [""])
        return batch.parent if batch is not None else find(folders, PYTHON_ARCHIVE, [""])

    def _find_subset(self) -> Path | None:
        if self.subset is False:
            return None
        found = find([self.root / folder for folder in (CIFAR10_SUBSET.folder, "cifar10_subset")], "x_train.npy")
        return found.parent if found is not None else None


def _read_subset(folder: Path) -> tuple[Split, Split]:
    arrays = []
    for (name, sha256), shape in zip(
        CIFAR10_SUBSET.content, ((4000, 3, 32, 32), (4000,), (1000, 3, 32, 32), (1000,)), strict=True
    ):
        path = find([folder], name)
        if path is None:
            raise UserError(f"{folder / name} is not there, plain, .gz or .xz", do="copy the whole folder anew")
        content = read(path)
        check_content(path, content, sha256)
        array = np.load(io.BytesIO(content), allow_pickle=False)
        if array.shape != shape or array.dtype != np.uint8:
            raise UserError(f"{path} holds {array.dtype} {array.shape}", allowed=f"uint8 {shape}", do=replace_it(path))
        arrays.append(torch.from_numpy(array))
    return Split(arrays[0], arrays[1].long()), Split(arrays[2], arrays[3].long())


def _read_full(path: Path) -> tuple[Split, Split]:
    if path.is_dir():
        records = {name: _read_batch(path / f"{name}.bin") for name in (*TRAIN_FILES, "test_batch")}
    else:
        records = _read_archive(path)
    parts = []
    for names in (TRAIN_FILES, ("test_batch",)):
        table = torch.from_numpy(np.concatenate([records[name] for name in names]))
        parts.append(Split(table[:, 1:].reshape(-1, 3, 32, 32), table[:, 0].long()))
    return parts[0], parts[1]


def _read_batch(path: Path) -> np.ndarray:
    content = read(path)
    records = _records(path, content)
    check_content(path, content, FULL.content_sha256(path.name))
    return records


def _read_archive(path: Path) -> dict[str, np.ndarray]:
    """The records of each batch in an archive that has been checked, without unpacking it to disk."""
    binary = path.name == BINARY_ARCHIVE
    wanted = FULL.file(path.name).sha256 if binary else FULL.content_sha256(path.name)
    found = sha256_of(path)
    if found != wanted:
        raise UserError(
            f"{path} does not hold what was published: wrong checksum",
            given=f"sha256 {found}, {path.stat().st_size:,} bytes",
            allowed=f"sha256 {wanted}",
            do=replace_it(path),
        )
    records = {}
    try:
        with tarfile.open(path, "r|gz") as archive:
            for member in archive:
                name = Path(member.name).name.removesuffix(".bin")
                if member.isfile() and name in (*TRAIN_FILES, "test_batch"):
                    content = archive.extractfile(member).read()
                    records[name] = _records(path, content) if binary else _unpickled(content)
    except (*DAMAGED, tarfile.TarError, pickle.UnpicklingError) as error:
        raise UserError(f"{path} is damaged: {error}", do=replace_it(path)) from error
    return records


def _records(path: Path, content: bytes) -> np.ndarray:
    """uint8 of shape (10,000, 1 + 3,072): the label, then the red, green and blue pixels row by row."""
    if len(content) != RECORDS * (1 + PIXELS):
        raise UserError(
            f"{path} has the wrong length",
            given=f"{len(content):,} bytes",
            allowed=f"{RECORDS * (1 + PIXELS):,} bytes",
            do=replace_it(path),
        )
    return np.frombuffer(content, np.uint8).reshape(RECORDS, 1 + PIXELS)


def _unpickled(content: bytes) -> np.ndarray:
    batch = _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
    return np.column_stack([np.asarray(batch[b"labels"], np.uint8), batch[b"data"]])


class _ArrayUnpickler(pickle.Unpickler):
    """Builds NumPy arrays and nothing else: a pickle may otherwise name any function to call."""

    def find_class(self, module: str, name: str) -> object:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return np.empty(0).__reduce__()[0]
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a data file")
