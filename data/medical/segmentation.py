"""What all data sets of labelled images and volumes share: patches for training, whole volumes for everything else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from ...core.ranges import Share, Size, checked
from ..loading import EpochSampler, Loading
from ..module import Description
from ..randomness import hashed
from .cases import AnyCase
from .plan import IGNORED
from .planned import PlannedData, sizes_asked


class SegmentationData(PlannedData):
    """Base of the segmentation data: a subclass reads its cases, with `load`, and plans, with `make_plan`.

    A training batch is (patches, labels): float32 (batch, channels, *patch) and int64 (batch, *patch). Validation and test
    batches are one whole volume: (1, channels, *sizes) and (1, *sizes).

    Args:
        name: the data set's name in results.
        loading: how batches are made.
        patch_size: voxels along each axis, or one number; None: the plan's.
        foreground: share of the training patches that contain a voxel of some class but the background.
        augment: mirror training patches and vary their intensities and size.
        patches: of each training volume in an epoch.
    """

    tested = "whole volumes of the test part"

    @checked(group="data")
    def __init__(
        self,
        name: str,
        loading: Loading,
        patch_size: Size | Sequence[Size] | None = None,
        foreground: Share = 0.33,
        augment: bool = True,
        patches: Size = 1,
    ):
        super().__init__(name, loading)
        self.patch_size, self.foreground, self.augment, self.patches = patch_size, foreground, augment, patches

    def samples(self, split: str) -> int:
        """Volumes of a split; of train the patches of an epoch."""
        return len(self.splits[split]) * (self.patches if split == "train" else 1)

    def load_batch(self, split: str, epoch: int, positions: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """See the class."""
        known = self.splits[split]
        cases = [known[position % len(known)] for position in positions]
        if split == "train":
            return _stacked([self._patch(case, epoch, int(at)) for case, at in zip(cases, positions, strict=True)])
        return _stacked([(case.image, case.labels) for case in cases])

    def example(self, batch: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
        """Patches from the middle of the first test volumes."""
        self.setup()
        return _stacked([self._middle(self.splits["test"][number % self.samples("test")]) for number in range(batch)])

    def sampler(self, split: str, rank: int, ranks: int) -> EpochSampler:
        """Whole volumes one by one: their sizes differ."""
        size = self.loading.batch_size if split == "train" else 1
        return EpochSampler(self.samples(split), size, self.loading.seed, split == "train", rank, ranks)

    def describe(self) -> Description:
        """See `DataModule.describe`."""
        self.read()
        patch = "×".join(map(str, self.plan.patch_size))
        return self.described(
            shape=f"patches of {patch}, {self.plan.channels} channels, {len(self.plan.classes)} classes",
            for_model=self.plan.described(),
            values=self.plan.channels * int(np.prod(self.plan.patch_size)),
            resized_by="data.patch_size",
            tested=self.tested,
        )

    def keep_largest(self, classes: Sequence[str]) -> None:
        """The classes of which the largest connected part alone is to be kept in predicting; `keep` writes them."""
        self.plan = replace(self.plan, largest=tuple(classes))

    def patch_of(self, axes: int, otherwise: Sequence[int]) -> tuple[int, ...]:
        """The patch size that was asked for, of so many axes; else the one given."""
        return sizes_asked(self.patch_size, axes, otherwise, "data.patch_size")

    @cached_property
    def _augmentation(self) -> Any:
        """MONAI's transforms of a patch; each draws from a generator that is seeded anew for each sample."""
        from monai import transforms as t

        axes, both = self.plan.axes, ("image", "label")
        turns = {
            "rotate_range": [0.26] * (1 if axes == 2 else 3),
            "scale_range": [0.15] * axes,
            "padding_mode": "zeros",
        }
        return t.Compose([
            *(t.RandFlipd(both, prob=0.5, spatial_axis=axis) for axis in range(axes)),
            t.RandAffined(both, prob=0.2, mode=("bilinear", "nearest"), **turns),
            t.RandGaussianNoised("image", prob=0.15, std=0.1),
            t.RandScaleIntensityd("image", factors=0.25, prob=0.15),
            t.RandAdjustContrastd("image", prob=0.15, gamma=(0.7, 1.5), retain_stats=True),
        ])  # fmt: skip

    def _patch(self, case: AnyCase, epoch: int, position: int) -> tuple[np.ndarray, np.ndarray]:
        """A patch, (channels, *patch) and (*patch): a function of case, epoch and seed alone."""
        seed = hashed(self.loading.seed, epoch, position).item() % 2**32
        rng, patch = np.random.default_rng(seed), self.plan.patch_size
        sizes = case.labels.shape
        first = np.array([rng.integers(0, max(n - p, 0) + 1) for n, p in zip(sizes, patch, strict=True)])
        if rng.random() < self.foreground:
            inside = case.inside
            if len(inside):
                voxel = np.array(np.unravel_index(inside[rng.integers(len(inside))], sizes))
                first = np.clip(voxel - np.array(patch) // 2, 0, np.maximum(np.array(sizes) - patch, 0))
        image, labels = _cut(case, first, patch)
        if not self.augment:
            return image, labels
        self._augmentation.set_random_state(seed)
        found = self._augmentation({"image": torch.from_numpy(image), "label": torch.from_numpy(labels)[None]})
        return np.asarray(found["image"]), np.asarray(found["label"])[0].astype(np.uint8)

    def _middle(self, case: AnyCase) -> tuple[np.ndarray, np.ndarray]:
        spare = np.array(case.labels.shape) - self.plan.patch_size
        return _cut(case, np.maximum(spare, 0) // 2, self.plan.patch_size)


def shrunk(image: np.ndarray, labels: np.ndarray, factor: int) -> tuple[np.ndarray, np.ndarray]:
    """An image (channels, height, width) and its classes (height, width) of which factor² pixels have become one.

    The image is averaged; a pixel has the class that most of its pixels had, the higher one where two have as many. Rows and
    columns that fill no pixel are cut off.
    """
    if factor == 1:
        return image, labels
    height, width = (size // factor * factor for size in labels.shape)
    image, labels = image[:, :height, :width], labels[:height, :width]
    blocks = (height // factor, factor, width // factor, factor)
    counts = np.stack([(labels == value).reshape(blocks).sum((1, 3)) for value in range(int(labels.max()), -1, -1)])
    classes = (labels.max() - counts.argmax(0)).astype(labels.dtype)
    return image.reshape(len(image), *blocks).mean((2, 4), dtype=np.float32), classes


def _cut(case: AnyCase, first: np.ndarray, patch: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """The patch that begins at a voxel; where the volume is smaller, zeros and IGNORED around it."""
    where = tuple(slice(a, a + p) for a, p in zip(first, patch, strict=True))
    image, labels = case.image[(slice(None), *where)], case.labels[where]
    missing = [p - n for p, n in zip(patch, labels.shape, strict=True)]
    if any(missing):
        around = [(m // 2, m - m // 2) for m in missing]
        image = np.pad(image, [(0, 0), *around])
        labels = np.pad(labels, around, constant_values=IGNORED)
    return np.ascontiguousarray(image), np.ascontiguousarray(labels)


def _stacked(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = zip(*pairs, strict=True)
    return (
        torch.from_numpy(np.stack(images).astype(np.float32)),
        torch.from_numpy(np.stack(labels).astype(np.int64)),
    )
