"""scikit-learn's handwritten digits: 1,797 images of 8x8 pixels that come with the package."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ...core.errors import UserError
from ...core.ranges import Fraction, Seed, Side, Size, checked
from ..files import check_content, read
from ..loading import Loading
from .augmentation import LIGHT, Augmentation, Geometry
from .images import ImageData, Split
from .sources import DIGITS


class Digits(ImageData):
    """Handwritten digits, 8x8 pixels, one channel; nothing to download.

    Args:
        loading: how batches are made; no worker processes is quickest here.
        augmentation: how training images are varied; light: shift, turn, size.
        image_size: pixels, or (height, width); None: 8.
        channels: 1 or 3; None: 1.
        val_fraction, test_fraction: share of the images for validation and for testing, in each class.
        split_seed: seed of the split.
        name: the data set's name in results.
    """

    source = DIGITS
    geometry = Geometry(shift=1, rotate=10.0, scale=0.1)
    own_size, own_channels = (8, 8), 1
    # of the 1,258 training images of the default split
    mean, std = (0.3052,), (0.3755,)
    classes = tuple("0123456789")
    tested = "the test part (data.test_fraction)"

    @checked(group="data")
    def __init__(
        self,
        loading: Loading = Loading(batch_size=64),
        augmentation: Augmentation = LIGHT,
        image_size: Side | Sequence[Side] | None = None,
        channels: Size | None = None,
        val_fraction: Fraction = 0.1,
        test_fraction: Fraction = 0.2,
        split_seed: Seed = 0,
        name: str = "digits",
    ):
        super().__init__(name, loading, augmentation, image_size, channels, split_seed)
        self.fractions = (val_fraction, test_fraction)
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
