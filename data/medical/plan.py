"""How a data set's volumes are prepared and how large the patches and stages of a network for them are; as nnU-Net plans it.

(Isensee et al. 2021, nnU-Net, Nature Methods 18, supplementary note 2: spacing, intensities, patch and pooling.)
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from ...core.errors import UserError

FILE = "plan.json"
IGNORED = 255  # a label that is neither learnt nor counted
SMALLEST = 4  # voxels along an axis of the coarsest map
ANISOTROPIC = 2.0  # an axis whose voxels are longer by this factor is neither pooled nor convolved with the others
NORMALISATIONS = ("zscore", "ct")


@dataclass(frozen=True)
class Plan:
    """What travels with a trained model.

    Args:
        axes: 2 or 3. spacing: mm along each axis that volumes are resampled to; () leaves them as they are.
        patch_size: voxels along each axis that a network sees at once.
        normalisation: "zscore" (each volume by its own mean and deviation) or "ct" (clipped, then by the data set's).
        low, high, mean, std: of the foreground in the training volumes, for "ct": clipped to low..high.
        classes: names, the background first. values: the number that stands for each class in label files.
        regions: classes that are learnt and measured together, by name: {"whole tumour": ["oedema", "core"]}; None: each by itself.
        largest: classes of which the largest connected part alone is kept, because it helped in validation; None: not decided yet.
    """

    axes: int
    patch_size: tuple[int, ...]
    classes: tuple[str, ...]
    values: tuple[int, ...]
    channels: int = 1
    spacing: tuple[float, ...] = ()
    normalisation: str = "zscore"
    low: float = 0.0
    high: float = 0.0
    mean: float = 0.0
    std: float = 1.0
    largest: tuple[str, ...] | None = None
    regions: Mapping[str, Sequence[str]] | None = None

    def moments(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What `normalised` subtracts and divides by, of an image (channels, *sizes): float32 (channels, 1, ...)."""
        shape = (len(image), *(1,) * self.axes)
        if self.normalisation == "ct":
            return np.full(shape, self.mean, np.float32), np.full(shape, max(self.std, 1e-6), np.float32)
        # plane by plane, so that memory holds no second volume
        planes, around = range(image.shape[1]), tuple(range(1, self.axes))
        mean = sum(image[:, at].sum(around, dtype=np.float64) for at in planes) / image[0].size
        apart = mean.reshape(len(image), *(1,) * (self.axes - 1))
        square = sum(((image[:, at] - apart) ** 2).sum(around) for at in planes) / image[0].size
        return mean.astype(np.float32).reshape(shape), np.sqrt(square).clip(1e-6).astype(np.float32).reshape(shape)

    def normalised(self, image: np.ndarray, moments: tuple[np.ndarray, np.ndarray] | None = None) -> np.ndarray:
        """(channels, *sizes) -> the same, float32, as networks take it; moments: of the whole image, where this is a part of it."""
        mean, std = self.moments(image) if moments is None else moments
        image = image.astype(np.float32)
        if self.normalisation == "ct":
            image = image.clip(self.low, self.high)
        return (image - mean) / std

    def sizes_for(self, sizes: Sequence[int], spacing: Sequence[float]) -> tuple[int, ...]:
        """The sizes of a volume of these sizes and this spacing once it is resampled."""
        if not self.spacing or not len(spacing):
            return tuple(sizes)
        return tuple(max(1, round(n * a / b)) for n, a, b in zip(sizes, spacing, self.spacing, strict=True))

    def stages(self) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
        """Kernels and strides of a network's stages, the finest first, each (stages, axes)."""
        sizes, spacing = list(self.patch_size), list(self.spacing or (1.0,) * self.axes)
        kernels, strides = [], [(1,) * self.axes]
        while True:
            finest = min(spacing)
            kernels.append(tuple(3 if step / finest < ANISOTROPIC else 1 for step in spacing))
            wide = [step for size, step in zip(sizes, spacing, strict=True) if size >= 2 * SMALLEST]
            if not wide:
                return kernels, strides
            pooled = [
                size >= 2 * SMALLEST and step / min(wide) < ANISOTROPIC
                for size, step in zip(sizes, spacing, strict=True)
            ]
            strides.append(tuple(2 if pool else 1 for pool in pooled))
            sizes = [-(-size // step) for size, step in zip(sizes, strides[-1], strict=True)]
            spacing = [size * step for size, step in zip(spacing, strides[-1], strict=True)]

    def write(self, folder: Path) -> None:
        """Writes plan.json, which a person may edit."""
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f".{FILE}.tmp"
        part.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")
        os.replace(part, folder / FILE)

    @classmethod
    def read(cls, path: Path) -> Plan:
        """The plan of a file.

        Raises:
            UserError: it is not JSON, or has unknown or missing names or values that do not fit together.
        """
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            plan = cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in found.items()})
        except (ValueError, TypeError, AttributeError, OSError) as error:
            raise UserError(
                f"{path} is not a plan: {error}", allowed=", ".join(each.name for each in fields(cls)),
                do=f"mend {path}, or copy it from another run",
            ) from error  # fmt: skip
        plan.check(str(path))
        return plan

    def check(self, where: str) -> None:
        """Raises UserError, naming where the plan comes from, where its values do not fit together."""
        wrong = None
        if self.axes not in (2, 3):
            wrong = f"axes is {self.axes}, 2 or 3 is allowed"
        elif len(self.patch_size) != self.axes or not all(isinstance(n, int) and n > 0 for n in self.patch_size):
            wrong = f"patch_size is {self.patch_size}, {self.axes} whole numbers from 1 are needed"
        elif self.spacing and (len(self.spacing) != self.axes or not all(step > 0 for step in self.spacing)):
            wrong = f"spacing is {self.spacing}, {self.axes} lengths above 0 are needed"
        elif self.normalisation not in NORMALISATIONS:
            wrong = f"normalisation is {self.normalisation!r}, one of {', '.join(NORMALISATIONS)} is allowed"
        elif unknown := sorted(
            {each for of_one in (self.regions or {}).values() for each in of_one} - set(self.classes[1:])
        ):
            wrong = f"regions name {', '.join(unknown)}, of {', '.join(self.classes[1:])} are allowed"
        elif not all((self.regions or {"": self.classes}).values()):
            wrong = "regions has one without a class"
        elif not set(self.largest or ()) <= set(self.classes[1:]):
            wrong = f"largest is {self.largest}, of {', '.join(self.classes[1:])} are allowed"
        elif len(self.classes) != len(self.values) or len(self.classes) < 2:
            wrong = (
                f"{len(self.classes)} classes and {len(self.values)} values: as many of one as of the other, from two"
            )
        if wrong:
            raise UserError(f"{where}: {wrong}")

    def described(self) -> dict[str, Any]:
        """What models and tasks are built from, as JSON values."""
        kernels, strides = self.stages()
        return {
            "task": "segmentation", "axes": self.axes, "channels": self.channels, "classes": list(self.classes),
            "num_classes": len(self.classes), "patch_size": list(self.patch_size), "spacing": list(self.spacing),
            "kernels": [list(each) for each in kernels], "strides": [list(each) for each in strides],
            "regions": {name: [self.classes.index(each) for each in of_one] for name, of_one in (self.regions or {}).items()},
            "model_size": "micro" if math.prod(self.patch_size) <= 48**self.axes else "full",
        }  # fmt: skip


def planned_patch(sizes: Sequence[int], spacing: Sequence[float], voxels: int) -> tuple[int, ...]:
    """A patch of about so many voxels at most, as long in mm along each axis as the sizes allow, each a multiple of 8 or short.

    Args:
        sizes: of a typical volume, resampled. spacing: its mm; () for voxels of one length.
        voxels: the budget.
    """
    lengths = np.array(spacing or (1.0,) * len(sizes))
    patch = np.array(sizes, float)
    while math.prod(map(int, patch)) > voxels:
        longest = int(np.argmax(np.where(patch > SMALLEST, patch * lengths, 0)))
        patch[longest] = max(SMALLEST, patch[longest] * 0.95)
    return tuple(int(n) // 8 * 8 if n >= 8 else max(1, int(n)) for n in patch)


def resampled(image: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """(channels, *old sizes) -> (channels, *sizes), linear between voxel centres, float32."""
    if tuple(image.shape[1:]) == tuple(sizes):
        return image.astype(np.float32)
    mode = {2: "bilinear", 3: "trilinear"}[len(sizes)]
    return F.interpolate(torch.from_numpy(image.astype(np.float32))[None], size=tuple(sizes), mode=mode)[0].numpy()


def resampled_labels(labels: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """(*old sizes) whole numbers -> (*sizes): at each voxel the class that linear interpolation gives the most."""
    if tuple(labels.shape) == tuple(sizes):
        return labels
    best, found = np.full(sizes, -1, np.float32), np.zeros(sizes, labels.dtype)
    for value in np.unique(labels):
        share = resampled((labels == value)[None], sizes)[0]
        found[share > best], best = value, np.maximum(best, share)
    return found


def prepared_labels(labels: np.ndarray, plan: Plan, spacing: Sequence[float], ignored: int | None) -> np.ndarray:
    """Labels of a file, (*sizes), as classes 0, 1, …: uint8 of the plan's spacing, IGNORED where the file says so."""
    values = np.array(plan.values)
    classes = np.searchsorted(values, labels).clip(0, len(values) - 1)
    unknown = values[classes] != labels
    classes = np.where(unknown, IGNORED, classes).astype(np.uint8)
    if unknown.any() and ignored is None:
        raise UserError("labels have values that the plan does not name", given=np.unique(labels[unknown])[:4].tolist())
    return resampled_labels(classes, plan.sizes_for(labels.shape, spacing))
