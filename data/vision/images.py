"""What all image data sets share: splits, preparation, description."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...core.errors import UserError
from ...core.ranges import Seed, Side, Size, checked
from ..loading import EpochLoader, Loading
from ..module import Description
from .augmentation import ArrayPreparation, Augmentation, FilePreparation, Finish, Geometry
from .decoding import ImageFile
from .labelled import Labelled
from .photos import Photos

# up to this many pixels a side, the data set asks for the micro model
MICRO = 64


@dataclass(frozen=True)
class Split:
    """Samples of one split.

    Args:
        images: uint8 of shape (samples, channels, height, width), or a list of image files, or what gives an ImageFile for a
            position and a part of itself for a tensor of positions.
        labels: int64 of shape (samples,).
    """

    images: torch.Tensor | Sequence[ImageFile]
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: np.ndarray) -> Split:
        """The samples at these positions, (count,)."""
        index = torch.from_numpy(positions)
        images = [self.images[i] for i in positions] if isinstance(self.images, list) else self.images[index]
        return Split(images, self.labels[index])


class ImageData(Labelled):
    """Base of the image data modules: a subclass says where the samples come from, with `load()`.

    Batches are (images, labels): float32 (batch, channels, height, width), and int64 (batch,).

    Args:
        name: the data set's name in results.
        loading: how batches are made.
        augmentation: how training images are varied.
        image_size: height and width the model sees, or one number for both; None: the data set's own.
        channels: 1 or 3; None: the data set's own.
        split_seed: seed of the splits and of `limit`'s choice; apart from the run's seed, so that runs can be compared.
    """

    geometry = Geometry()
    own_size: tuple[int, int]
    own_channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: Sequence[str]
    in_memory = True
    crop: float | None = None  # of images in files, see ImageFiles
    what = "images"
    tested = "the test part"

    @checked(group="data")
    def __init__(
        self,
        name: str,
        loading: Loading,
        augmentation: Augmentation,
        image_size: Side | Sequence[Side] | None = None,
        channels: Size | None = None,
        split_seed: Seed = 0,
    ):
        super().__init__(name, loading, split_seed)
        self.augmentation = augmentation
        self.size = _checked_size(image_size) if image_size is not None else self.own_size
        if channels not in (None, 1, 3):
            raise UserError("data.channels does not fit", given=channels, allowed=[1, 3])
        self.channels = self.own_channels if channels is None else channels
        self._preparations: dict[str, ArrayPreparation | FilePreparation] = {}

    def load_batch(self, split: str, epoch: int, positions: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Images and labels; see the class."""
        return self._preparation(split)(epoch, positions), self.splits[split].labels[torch.from_numpy(positions)]

    def loader(self, split: str) -> EpochLoader:
        """See `DataModule.loader`."""
        self.setup()
        if self.samples(split):
            # before worker processes start: they share what it imports
            self._preparation(split)
        return super().loader(split)

    def describe(self) -> Description:
        """See `DataModule.describe`."""
        self.read()
        mean, std = self._statistics()
        height, width = self.size
        return self.described(
            shape=f"{self.channels}×{height}×{width}, {len(self.classes)} classes",
            for_model={
                "channels": self.channels,
                "image_size": list(self.size),
                "classes": list(self.classes),
                "num_classes": len(self.classes),
                "mean": list(mean),
                "std": list(std),
                "model_size": "micro" if max(self.size) <= MICRO else "tiny",
            },
            values=self.channels * height * width,
            resized_by="data.image_size",
            tested=self.tested,
        )

    def photos(self) -> Photos:
        """What prepares images from anywhere as the test images are prepared; reads nothing."""
        own = (self.own_size, self.own_channels) if self.in_memory else None
        return Photos(self.size, *self._statistics(), crop=self.crop, own=own)

    @classmethod
    def reading(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """See `DataModule.reading`: the size, the channels and the normalisation that the model has seen."""
        own = {
            "image_size": list(cls.own_size),
            "channels": cls.own_channels,
            "mean": list(cls.mean),
            "std": list(cls.std),
        }
        kept = {key: value if settings.get(key) is None else settings[key] for key, value in own.items()}
        return {**super().reading(settings), **kept}

    def _preparation(self, split: str) -> ArrayPreparation | FilePreparation:
        """What makes batches of a split's images."""
        if split not in self._preparations:
            self._preparations[split] = self._prepared(split)
        return self._preparations[split]

    def _prepared(self, split: str) -> ArrayPreparation | FilePreparation:
        images, seed = self.splits[split].images, self.loading.seed
        augmentation = self.augmentation if split == "train" and self.augmentation.kind != "none" else None
        finish = Finish(*self._statistics(), seed, augmentation.erase if augmentation else 0.0)
        if isinstance(images, torch.Tensor):
            geometry, policy = (self.geometry, augmentation.policy) if augmentation else (None, None)
            return ArrayPreparation(images, self.size, finish, geometry, policy, seed)
        return FilePreparation(images, self.size, finish, augmentation, seed, self.crop)

    def _statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel that the model sees, for pixels in [0, 1]."""
        if len(self.mean) == self.channels:
            return self.mean, self.std
        if self.channels == 3:
            return self.mean * 3, self.std * 3
        return (sum(self.mean) / 3,), (sum(self.std) / 3,)


def _checked_size(size: int | Sequence[int]) -> tuple[int, int]:
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise UserError("data.image_size does not fit", given=size, allowed="a number of pixels, or [height, width]")
    return sides
