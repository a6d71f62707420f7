"""scikit-learn's handwritten digits: 1,797 images of 8x8 pixels that come with the package."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from ...core.errors import UserError
from ...core.ranges import Fraction, Seed, Share, Side, Size, Workers
from ..files import check_content, read
from ..loading import Loading
from ..sources import DIGITS
from .augmentation import Augmentation, Geometry
from .module import ImageData, Split, checked_fraction


class Digits(ImageData):
    """Handwritten digits, 8x8 pixels, one channel; nothing to download.

    Args:
        batch_size: samples in a batch.
        workers: processes that prepare batches; 0 is quickest here.
        seed: rules the order of the batches and the augmentation.
        image_size: pixels, or (height, width); None: 8.
        channels: 1 or 3; None: 1.
        augmentation: none, light (shift, turn, size) or standard (RandAugment and erasing too).
        rand_augment, erasing: see `Augmentation`.
        val_fraction, test_fraction: share of the images for validation and for testing, in each class.
        split_seed: seed of the split.
        limit: use no more than this many images of each split.
        pin_memory: page-locked batches, for a GPU.
        name: the data set's name in results.
    """

    source = DIGITS
    geometry = Geometry(shift=1, rotate=10.0, scale=0.1)
    own_size, own_channels = (8, 8), 1
    # of the 1,258 training images of the default split
    mean, std = (0.3052,), (0.3755,)
    classes = tuple("0123456789")

    def __init__(
        self,
        batch_size: Size = 64,
        workers: Workers = 0,
        seed: Seed = 0,
        image_size: Side | Sequence[Side] | None = None,
        channels: Size | None = None,
        augmentation: Literal["none", "light", "standard"] = "light",
        rand_augment: str | None = None,
        erasing: Share | None = None,
        val_fraction: Fraction = 0.1,
        test_fraction: Fraction = 0.2,
        split_seed: Seed = 0,
        limit: Size | None = None,
        pin_memory: bool = False,
        name: str = "digits",
    ):
        loading = Loading(batch_size, workers, seed, limit, pin_memory)
        super().__init__(
            name, loading, Augmentation(augmentation, rand_augment, erasing), image_size, channels, split_seed
        )
        self.fractions = (
            checked_fraction("val_fraction", val_fraction),
            checked_fraction("test_fraction", test_fraction),
        )
        if sum(self.fractions) >= 1:
            raise UserError("data.val_fraction and data.test_fraction leave nothing to train on", given=self.fractions)

    def load(self) -> dict[str, Split]:
        """Read and split the images; see `ImageData.load`."""
        path = digits_file()
        content = read(path)
        check_content(path, content, self.source.content_sha256("digits.csv"))
        table = np.loadtxt(content.decode().splitlines(), delimiter=",", dtype=np.int64)
        # 0 to 16 ink dots in a pixel become 0 to 255
        images = torch.from_numpy(np.rint(table[:, :-1] * (255 / 16)).astype(np.uint8)).view(-1, 1, 8, 8)
        train, val, test = self._divided(Split(images, torch.from_numpy(table[:, -1])), *self.fractions)
        return {"train": train, "val": val, "test": test}


def digits_file() -> Path:
    """Where scikit-learn keeps its digits; found without importing it, which takes longer than reading them."""
    package = importlib.util.find_spec("sklearn")
    path = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz" if package else None
    if path is None or not path.is_file():
        raise UserError("The digits come with scikit-learn, which is not installed", do="pip install scikit-learn")
    return path
