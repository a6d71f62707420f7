"""What all image data modules share: splits, loaders, description."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import LightningDataModule

from ...core.errors import UserError
from ...core.ranges import Seed, Side, Size, checked
from ..loading import Batches, EpochLoader, EpochSampler, Loading
from ..randomness import first_of_each, hashed, stratified
from ..sources import Source
from .augmentation import ArrayPreparation, Augmentation, FilePreparation, Finish, Geometry
from .photos import Photos

SPLITS = ("train", "val", "test")
# up to this many pixels a side, the data set asks for the micro model
MICRO = 64


@dataclass(frozen=True)
class Split:
    """Samples of one split.

    Args:
        images: uint8 of shape (samples, channels, height, width), or the paths of the image files.
        labels: int64 of shape (samples,).
    """

    images: torch.Tensor | Sequence[Path]
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: np.ndarray) -> Split:
        """The samples at these positions, (count,)."""
        index = torch.from_numpy(positions)
        images = self.images[index] if isinstance(self.images, torch.Tensor) else [self.images[i] for i in positions]
        return Split(images, self.labels[index])


class ImageData(LightningDataModule):
    """Base of the image data modules: a subclass says where the samples come from, with `load()`.

    Args:
        name: the data set's name in results.
        loading: how batches are made.
        augmentation: how training images are varied.
        image_size: height and width the model sees, or one number for both; None: the data set's own.
        channels: 1 or 3; None: the data set's own.
        split_seed: seed of the splits and of `limit`'s choice; apart from the run's seed, so that runs can be compared.
    """

    source: Source
    geometry = Geometry()
    own_size: tuple[int, int]
    own_channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: Sequence[str]
    subset = False
    in_memory = True

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
        super().__init__()
        self.name, self.loading, self.augmentation, self.split_seed = name, loading, augmentation, split_seed
        self.size = _checked_size(image_size) if image_size is not None else self.own_size
        if channels not in (None, 1, 3):
            raise UserError("data.channels does not fit", given=channels, allowed=[1, 3])
        self.channels = self.own_channels if channels is None else channels
        self.splits: dict[str, Split] | None = None

    @abstractmethod
    def load(self) -> dict[str, Split]:
        """Read the samples of train, val and test and check them; raises UserError naming the file that is wrong."""

    def prepare_data(self) -> None:
        """Download what is missing; Lightning calls this in one process of each machine."""

    def setup(self, stage: str | None = None) -> None:
        """Read the samples, once."""
        if self.splits is not None:
            return
        splits = self.load()
        for name, split in splits.items():
            if len(split) == 0:
                raise UserError(
                    f"{self.name} has no {name} samples",
                    do="raise data.val_fraction, or add images" if name == "val" else "add images",
                )
        if self.loading.limit is not None:
            splits = {name: self._limited(split) for name, split in splits.items()}
        self.splits = splits

    def describe(self) -> dict[str, object]:
        """What a model and a report have to know about the data; reads (and downloads) it first, where that was not done."""
        if self.splits is None:
            self.prepare_data()
            self.setup()
        mean, std = self._statistics()
        return {
            "domain": "vision",
            "name": self.name,
            "channels": self.channels,
            "image_size": self.size,
            "classes": list(self.classes),
            "num_classes": len(self.classes),
            **{name: len(split) for name, split in self.splits.items()},
            "mean": mean,
            "std": std,
            "model_size": "micro" if max(self.size) <= MICRO else "tiny",
            "title": self.source.title,
            "source": self.source.homepage,
            "licence": self.source.licence,
            "split": self.source.protocol,
            "subset": self.subset,
            "limit": self.loading.limit,
        }

    def photos(self) -> Photos:
        """What prepares images from anywhere as the test images are prepared; reads nothing."""
        own = (self.own_size, self.own_channels) if self.in_memory else None
        return Photos(self.size, *self._statistics(), own=own)

    def verify(self) -> None:
        """Read and check everything again, from the files; raises UserError naming the file that is wrong."""
        self.prepare_data()
        self.load()

    def train_dataloader(self) -> EpochLoader:
        """Shuffled, varied batches."""
        return self._loader("train", training=True)

    def val_dataloader(self) -> EpochLoader:
        """Every validation sample once, in order."""
        return self._loader("val", training=False)

    def test_dataloader(self) -> EpochLoader:
        """Every test sample once, in order."""
        return self._loader("test", training=False)

    def predict_dataloader(self) -> EpochLoader:
        """The test samples."""
        return self.test_dataloader()

    def _loader(self, name: str, training: bool) -> EpochLoader:
        if self.splits is None:
            self.setup()
        split, loading = self.splits[name], self.loading
        rank, ranks = (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)
        if len(split) < ranks:
            raise UserError(f"{self.name} has fewer {name} samples than there are processes", given=len(split))
        augmentation = self.augmentation if training and self.augmentation.kind != "none" else None
        finish = Finish(*self._statistics(), loading.seed, augmentation.erase if augmentation else 0.0)
        if isinstance(split.images, torch.Tensor):
            geometry, policy = (self.geometry, augmentation.policy) if augmentation else (None, None)
            load = ArrayPreparation(split.images, self.size, finish, geometry, policy, loading.seed)
        else:
            load = FilePreparation(split.images, self.size, finish, augmentation, loading.seed)
        sampler = EpochSampler(len(split), loading.batch_size, loading.seed, training, rank, ranks)
        return EpochLoader(Batches(load, split.labels), sampler, loading.workers, loading.pin_memory)

    def _limited(self, split: Split) -> Split:
        labels = split.labels.numpy()
        return split.take(first_of_each(labels, hashed(self.split_seed, np.arange(len(split))), self.loading.limit))

    def _divided(self, samples: Split, *fractions: float) -> list[Split]:
        """Stratified parts: the rest first, then one of each fraction."""
        keys = hashed(self.split_seed, np.arange(len(samples)))
        return [samples.take(part) for part in stratified(samples.labels.numpy(), keys, fractions)]

    def _statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel that the model sees, for pixels in [0, 1]."""
        if len(self.mean) == self.channels:
            return self.mean, self.std
        if self.channels == 3:
            return self.mean * 3, self.std * 3
        return (sum(self.mean) / 3,), (sum(self.std) / 3,)


def checked_fraction(name: str, value: float) -> float:
    """A share of the samples; UserError unless it lies between 0 and 1."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < 1:
        raise UserError(f"data.{name} is a share of the samples", given=value, allowed="more than 0 and less than 1")
    return float(value)


def _checked_size(size: int | Sequence[int]) -> tuple[int, int]:
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise UserError("data.image_size does not fit", given=size, allowed="a number of pixels, or [height, width]")
    return sides
