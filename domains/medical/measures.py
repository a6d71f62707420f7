"""How near a segmentation is to the truth: Dice by counting voxels, NSD and HD95 by MONAI, class by class."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def dice_of(said: Tensor, truth: Tensor, classes: int) -> Tensor:
    """Dice of classes 1 to `classes` of two label volumes; NaN of a class that neither has."""

    def counts(labels: Tensor) -> Tensor:
        return torch.bincount(labels.flatten(), minlength=classes + 1)[1 : classes + 1].double()

    both, all_ = counts(said[said == truth]), counts(said) + counts(truth)
    return torch.where(all_ == 0, math.nan, 2 * both / all_.clamp(min=1)).float()


def in_regions(labels: Tensor, regions: Sequence[Sequence[int]]) -> list[Tensor]:
    """A label volume of each region, (*sizes): 1 where the label is one of the region's, else 0."""
    return [torch.isin(labels, torch.tensor(list(members)).to(labels)).to(labels.dtype) for members in regions]


def distances_of(
    said: Tensor, truth: Tensor, classes: int, spacing: Sequence[float], tolerance: float
) -> tuple[Tensor, Tensor]:
    """NSD and HD95 (mm) of classes 1 to `classes` of two label volumes; NaN of a class that neither has.

    A class that only one of them has is as far away as the volume is long.

    Args:
        spacing: mm along each axis. tolerance: mm that a surface may be away and still count.
    """
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice

    nsd, hd95 = torch.full((classes,), math.nan), torch.full((classes,), math.nan)
    farthest = math.sqrt(sum((n * step) ** 2 for n, step in zip(said.shape, spacing, strict=True)))
    for number in range(1, classes + 1):
        one, other = (each.cpu() == number for each in (said, truth))
        there = bool(one.any()) + bool(other.any())
        if there == 1:
            nsd[number - 1], hd95[number - 1] = 0.0, farthest
        if there < 2:
            continue
        box = _box(one | other)
        # as MONAI takes them: a batch of one, the background before the class
        pair = [torch.stack([~each[box], each[box]])[None] for each in (one, other)]
        with warnings.catch_warnings():
            # MONAI 1.6 warns of an argument that it gives itself.
            warnings.simplefilter("ignore", FutureWarning)
            nsd[number - 1] = compute_surface_dice(*pair, class_thresholds=[tolerance], spacing=list(spacing))[0, 0]
            hd95[number - 1] = compute_hausdorff_distance(*pair, percentile=95, spacing=list(spacing))[0, 0]
    return nsd, hd95


def _box(mask: Tensor) -> tuple[slice, ...]:
    """The part of a volume that holds all that is True, and a voxel around it."""
    box = []
    for axis in range(mask.dim()):
        inside = F.max_pool1d(mask.movedim(axis, 0).flatten(1).any(1).float()[None], 3, 1, 1)[0].nonzero()
        box.append(slice(int(inside.min()), int(inside.max()) + 1))
    return tuple(box)
