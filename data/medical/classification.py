"""What all data sets of images and volumes with one class each share: whole images of one size, held in memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ...core.ranges import Size, checked
from ..loading import Loading
from ..module import Description
from ..randomness import uniforms
from .plan import Plan, resampled
from .planned import PlannedData, sizes_asked
from .volumes import Raw, Volumes, prepared

SHIFT = 1 / 14  # of each side, at most, by which training images are moved
BRIGHTNESS = 0.1  # largest change of the contrast of training images
AUGMENTATION = 7  # stream of random numbers


@dataclass(frozen=True)
class Labelled:
    """An image and its class.

    Args:
        name: of its file. image: float32 (channels, *sizes), normalised. label: number of the class.
    """

    name: str
    image: np.ndarray
    label: int


class WholeImages(Volumes):
    """Prepares files as the labelled images were prepared: normalised, then resized to the size that the model sees."""

    def prepare(self, raw: Raw) -> np.ndarray:
        """float32 (channels, *sizes that the model sees)."""
        whole = super().prepare(raw)
        return resampled(whole.read(0, whole.sizes[0]), self.plan.patch_size)


class ClassificationData(PlannedData):
    """Base of the classification data: a subclass reads its `Labelled` cases with `load`, and plans with `make_plan`.

    A batch is (images, labels): float32 (batch, channels, *sizes) and int64 (batch,). The plan's patch is the whole image.

    Args:
        name: the data set's name in results.
        loading: how batches are made.
        image_size: voxels along each axis, or one number; None: the plan's.
        augment: move training images by up to a fourteenth of their sides and vary their contrast by up to a tenth.
    """

    @checked(group="data")
    def __init__(
        self, name: str, loading: Loading, image_size: Size | Sequence[Size] | None = None, augment: bool = True
    ):
        super().__init__(name, loading)
        self.image_size, self.augment = image_size, augment

    def samples(self, split: str) -> int:
        """Images of a split."""
        return len(self.splits[split])

    def load_batch(self, split: str, epoch: int, positions: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """See the class."""
        cases = [self.splits[split][position] for position in positions]
        images = np.stack([case.image for case in cases])
        if split == "train" and self.augment:
            images = self._varied(images, epoch, positions)
        return torch.from_numpy(images), torch.tensor([case.label for case in cases])

    def describe(self) -> Description:
        """See `DataModule.describe`."""
        self.read()
        plan, size = self.plan, "×".join(map(str, self.plan.patch_size))
        return self.described(
            shape=f"{plan.channels}×{size}, {len(plan.classes)} classes",
            for_model={
                "task": "classification", "axes": plan.axes, "channels": plan.channels, "classes": list(plan.classes),
                "num_classes": len(plan.classes), "image_size": list(plan.patch_size),
                "model_size": "micro" if math.prod(plan.patch_size) <= 64**2 * (1 if plan.axes == 2 else 8) else "full",
            },
            values=plan.channels * math.prod(plan.patch_size),
            resized_by="data.image_size",
            tested=self.tested,
        )  # fmt: skip

    def volumes(self) -> WholeImages:
        """See `PlannedData.volumes`."""
        return WholeImages(super().volumes().plan)

    def size_of(self, axes: int, otherwise: Sequence[int]) -> tuple[int, ...]:
        """The image size that was asked for, of so many axes; else the one given."""
        return sizes_asked(self.image_size, axes, otherwise, "data.image_size")

    def _varied(self, images: np.ndarray, epoch: int, positions: np.ndarray) -> np.ndarray:
        """(batch, channels, *sizes) moved and of other contrast: a function of seed, epoch and position alone."""
        sizes = images.shape[2:]
        draws = 2 * uniforms(len(sizes) + 1, self.loading.seed, AUGMENTATION, epoch, positions) - 1
        varied = np.zeros_like(images)
        for number, image in enumerate(images):
            moves = [round(float(draw) * SHIFT * size) for draw, size in zip(draws[number], sizes, strict=False)]
            there = tuple(slice(max(move, 0), size + min(move, 0)) for move, size in zip(moves, sizes, strict=True))
            here = tuple(slice(max(-move, 0), size - max(move, 0)) for move, size in zip(moves, sizes, strict=True))
            varied[(number, slice(None), *there)] = image[(slice(None), *here)]
        contrast = 1 + BRIGHTNESS * draws[:, -1].astype(np.float32)
        return varied * contrast.reshape(-1, *(1,) * (images.ndim - 1))


def labelled(name: str, raw: Raw, label: int, plan: Plan) -> Labelled:
    """A file's content as a case of the plan."""
    return Labelled(name, resampled(prepared(raw, plan), plan.patch_size), label)
