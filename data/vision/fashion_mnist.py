"""Fashion-MNIST: 70,000 images of clothes, 28x28 pixels, in IDX files."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ...core.errors import UserError
from ...core.ranges import Fraction, Seed, Side, Size, checked
from ..download import fetch
from ..files import check_content, data_root, find, not_there, read, replace_it
from ..loading import Loading
from .augmentation import LIGHT, Augmentation, Geometry
from .images import ImageData, Split
from .sources import FASHION_MNIST

UNSIGNED_BYTE = 0x08
COUNTS = {"train": 60_000, "t10k": 10_000}


class FashionMNIST(ImageData):
    """Clothes, 28x28 pixels, one channel, 10 classes; downloaded (31 MB) where it is not found.

    Args:
        root: folder that holds the data; None: $POLYMAMBA_DATA, else `.data`. The files may lie in it directly, or in
            vision/fashion_mnist, fashion_mnist or FashionMNIST/raw, each plain, .gz or .xz.
        val_fraction: share of the training images that is used for validation, in each class.
        loading, augmentation, image_size, channels, split_seed, name: see `Digits`.
    """

    source = FASHION_MNIST
    geometry = Geometry(shift=2, flip=True)
    own_size, own_channels = (28, 28), 1
    mean, std = (0.2860,), (0.3530,)
    classes = (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    )

    @checked(group="data")
    def __init__(
        self,
        root: str | None = None,
        loading: Loading = Loading(batch_size=128),
        augmentation: Augmentation = LIGHT,
        image_size: Side | Sequence[Side] | None = None,
        channels: Size | None = None,
        val_fraction: Fraction = 0.1,
        split_seed: Seed = 0,
        name: str = "fashion_mnist",
    ):
        super().__init__(name, loading, augmentation, image_size, channels, split_seed)
        self.root = data_root(root)
        self.val_fraction = val_fraction

    def prepare_data(self) -> None:
        """Download the files that are not there."""
        for name, _ in self.source.content:
            if self._find(name) is None:
                fetch(self.source.file(f"{name}.gz"), self.root / self.source.folder)

    def load(self) -> dict[str, Split]:
        """Read the files and check their sha256; see `ImageData.load`."""
        samples = Split(
            self._read("train-images-idx3-ubyte").unsqueeze(1), self._read("train-labels-idx1-ubyte").long()
        )
        train, val = self._divided(samples, self.val_fraction)
        test = Split(self._read("t10k-images-idx3-ubyte").unsqueeze(1), self._read("t10k-labels-idx1-ubyte").long())
        return {"train": train, "val": val, "test": test}

    def _find(self, name: str) -> Path | None:
        folders = (self.source.folder, "fashion_mnist", "FashionMNIST/raw", "")
        return find([self.root / folder for folder in folders], name)

    def _read(self, name: str) -> torch.Tensor:
        path = self._find(name)
        if path is None:
            raise not_there(f"Fashion-MNIST's {name}", self.root)
        count = COUNTS[name.split("-")[0]]
        content = read(path)
        values = read_idx(path, content, (count, 28, 28) if "images" in name else (count,))
        check_content(path, content, self.source.content_sha256(name))
        return torch.from_numpy(values)


def read_idx(path: Path, content: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """The array in an IDX file of unsigned bytes (format: the MNIST database's page).

    Args:
        path: named in errors.
        content: the file's bytes, unpacked.
        shape: what the file is to hold.

    Returns:
        uint8 of that shape.

    Raises:
        UserError: the header or the length is not what it has to be.
    """
    length = 4 + 4 * len(shape)
    magic = bytes((0, 0, UNSIGNED_BYTE, len(shape)))
    if len(content) < length:
        problem, given, allowed = "is cut off in its header", f"{len(content)} bytes", f"a header of {length} bytes"
    elif content[:4] != magic:
        problem, given, allowed = "is no IDX file of this kind", f"first bytes {content[:4].hex()}", magic.hex()
    elif (found := struct.unpack(f">{len(shape)}I", content[4:length])) != shape:
        problem, given, allowed = "holds another number of values", f"shape {found}", f"shape {shape}"
    elif len(content) != length + math.prod(shape):
        problem, given = "has the wrong length", f"{len(content):,} bytes unpacked"
        allowed = f"{length + math.prod(shape):,} bytes"
    else:
        # a copy: PyTorch warns about memory that cannot be written
        return np.frombuffer(content, np.uint8, offset=length).reshape(shape).copy()
    raise UserError(f"{path} {problem}", given=given, allowed=allowed, do=replace_it(path))
