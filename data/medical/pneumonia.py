"""PneumoniaMNIST: 5,856 chest X-rays of children, 28x28 pixels, in one archive of arrays."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...core.errors import UserError
from ...core.ranges import Size, checked
from ..download import fetch
from ..files import data_root, find, not_there, replace_it
from ..loading import Loading
from ..randomness import shuffled
from .classification import ClassificationData, Labelled
from .plan import Plan, resampled
from .sources import PNEUMONIA_MNIST

FILE = "pneumoniamnist.npz"
COUNTS = {"train": (1_214, 3_494), "val": (135, 389), "test": (234, 390)}  # of normal and pneumonia, as published
SIDE = 28


class PneumoniaMNIST(ClassificationData):
    """Chest X-rays of 28x28 pixels, normal or pneumonia; downloaded (4 MB) where they are not found.

    Any copy with the published number of images of each class in each part is taken, whatever their order: training images are
    shuffled, so that `loading.limit` leaves some of both.

    Args:
        root: folder that holds the data; None: $POLYMAMBA_DATA, else `.data`. The file may lie in it directly, or in
            medical/pneumoniamnist.
        loading, image_size, augment: ClassificationData's.
        name: the data set's name in results.
    """

    source = PNEUMONIA_MNIST

    @checked(group="data")
    def __init__(
        self,
        root: str | None = None,
        loading: Loading = Loading(batch_size=64),
        image_size: Size | Sequence[Size] | None = None,
        augment: bool = True,
        name: str = "pneumonia_mnist",
    ):
        super().__init__(name, loading, image_size, augment)
        self.root = data_root(root)

    def prepare_data(self) -> None:
        """Download the file where it is not there."""
        if self._find() is None:
            fetch(self.source.file(FILE), self.root / self.source.folder)

    def make_plan(self) -> Plan:
        return Plan(2, self.size_of(2, (SIDE, SIDE)), ("normal", "pneumonia"), (0, 1))

    def load(self, plan: Plan) -> dict[str, list[Labelled]]:
        path = self._find()
        if path is None:
            raise not_there("PneumoniaMNIST", self.root)
        arrays = _arrays(path)
        return {split: self._part(path, arrays, split, plan) for split in COUNTS}

    def _part(self, path: Path, arrays: dict[str, np.ndarray], split: str, plan: Plan) -> list[Labelled]:
        images, labels = (arrays.get(f"{split}_{what}") for what in ("images", "labels"))
        count = sum(COUNTS[split])
        shapes = [None if each is None else each.shape for each in (images, labels)]
        if shapes != [(count, SIDE, SIDE), (count, 1)] or images.dtype != np.uint8:
            raise UserError(
                f"{path} does not hold the {split} images as published", given=f"shapes {shapes[0]} and {shapes[1]}",
                allowed=f"{(count, SIDE, SIDE)} and {(count, 1)}", do=replace_it(path),
            )  # fmt: skip
        labels = labels[:, 0].astype(int)
        found = tuple((labels == label).sum().item() for label in (0, 1))
        if found != COUNTS[split]:
            raise UserError(
                f"{path} does not hold the {split} images as published", given=f"{found} of the classes",
                allowed=f"{COUNTS[split]} normal and pneumonia", do=replace_it(path),
            )  # fmt: skip
        order = shuffled(count, 0, list(COUNTS).index(split))
        return [
            Labelled(f"{split} {number}", self._prepared(images[number], plan), int(labels[number])) for number in order
        ]

    def _prepared(self, image: np.ndarray, plan: Plan) -> np.ndarray:
        return resampled(plan.normalised(image[None]), plan.patch_size)

    def _find(self) -> Path | None:
        return find([self.root / folder for folder in (self.source.folder, "")], FILE, ("",))


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as stream, np.load(stream) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f"{path} is damaged or cut off: {error}", given=f"{path.stat().st_size:,} bytes", do=replace_it(path)
        ) from error
