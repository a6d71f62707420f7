"""Images of several bands, and the coarse and the panchromatic image that a sensor would have made of each (Wald's protocol)."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from ...core.errors import UserError
from ...core.ranges import Fraction, Range, Side, Size, Weight, checked
from ..loading import EpochSampler, Loading
from ..module import DataModule, Description
from ..randomness import uniforms
from .band_files import BandFiles

CROPS = 22  # stream of random numbers
MICRO = 32  # crops up to this many pixels a side ask for the micro model

Pair = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Scene:
    """An image of several bands, read when it is asked for.

    Args:
        name: of the image.
        read: gives its values, (bands, height, width), of any type.
    """

    name: str
    read: Callable[[], np.ndarray]


class BandData(DataModule):
    """Base of the data modules of images of several bands: a subclass says where they come from, with `load()`.

    A batch is a coarse image of all bands, a fine panchromatic one, and the fine image of all bands: float32 (batch, bands, height,
    width), (batch, 1, ratio * height, ratio * width) and (batch, bands, ratio * height, ratio * width), where white is 1. The third
    is what was given; the coarse one is it blurred and thinned out, the panchromatic one its weighted mean over the bands (Wald,
    Ranchin, Mangolini 1997). Training batches are crops, validation and test batches one whole image of any size.

    Args:
        name: the data set's name in results.
        loading: how batches are made.
        image_size: height and width of a fine crop, or one number for both; multiples of the ratio.
        ratio: fine pixels per coarse pixel, along each axis.
        gain: of the blur, at the highest frequency that the coarse grid holds; sensors have about 0.3.
        weights: of the bands in the panchromatic image, divided by their sum; None: equal.
        augment: crops from anywhere, mirrored; False: from the middle.
        crops: of each image in an epoch.
    """

    bands: Sequence[str]
    shown: Sequence[int]  # the bands that are drawn red, green and blue
    white: float = 1.0  # the value that becomes 1
    tested = "the test part"

    @checked(group="data")
    def __init__(
        self,
        name: str,
        loading: Loading,
        image_size: Side | Sequence[Side],
        ratio: Size = 4,
        gain: Fraction = 0.3,
        weights: Sequence[Weight] | None = None,
        augment: bool = True,
        crops: Size = 1,
    ):
        super().__init__(name, loading)
        sides = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
        Range(2, 64).check(ratio, "data.ratio")
        if len(sides) != 2 or any(side % ratio for side in sides):
            raise UserError(
                "data.image_size does not fit", given=image_size,
                allowed=f"a number of pixels, or [height, width], that data.ratio={ratio} divides",
                do=f"data.image_size={max(ratio, sides[0] // ratio * ratio)}",
            )  # fmt: skip
        self.size, self.ratio, self.gain, self.weights = sides, ratio, gain, weights
        self.augment, self.crops = augment, crops
        self.splits: dict[str, list[Scene]] | None = None

    @abstractmethod
    def load(self) -> dict[str, list[Scene]]:
        """The images of train, val and test, all at least as large as a crop; raises UserError naming the file that is wrong."""

    def setup(self, stage: str | None = None) -> None:
        """List the images, once."""
        if self.splits is not None:
            return
        splits, limit = self.load(), self.loading.limit
        for split, scenes in splits.items():
            if not scenes:
                raise UserError(f"{self.name} has no {split} images", do="add images, or lower data.val_fraction")
        if self.weights is not None and (len(self.weights) != len(self.bands) or not any(self.weights)):
            raise UserError(
                "data.weights does not fit", given=self.weights, allowed=f"{len(self.bands)} numbers, not all zero"
            )
        self.splits = {split: scenes[:limit] for split, scenes in splits.items()}

    def samples(self, split: str) -> int:
        """Crops of the training images; images of the others."""
        return len(self.splits[split]) * (self.crops if split == "train" else 1)

    def sampler(self, split: str, rank: int, ranks: int) -> EpochSampler:
        """See `DataModule.sampler`; whole images come one at a time."""
        size = self.loading.batch_size if split == "train" else 1
        return EpochSampler(self.samples(split), size, self.loading.seed, split == "train", rank, ranks)

    def load_batch(self, split: str, epoch: int, positions: np.ndarray) -> Pair:
        """See the class."""
        scenes = [self.splits[split][int(position) % len(self.splits[split])] for position in positions]
        if split != "train":
            return _batch([self._cut(scene, (0.5, 0.5), None) for scene in scenes])
        draws = uniforms(4, self.loading.seed, CROPS, epoch, positions) if self.augment else [[0.5] * 4] * len(scenes)
        found = []
        for scene, (top, left, over, across) in zip(scenes, draws, strict=True):
            axes = [axis for axis, drawn in ((1, over), (2, across)) if drawn < 0.5]
            found.append([each.flip(axes) for each in self._cut(scene, (top, left), self.size)])
        return _batch(found)

    def example(self, batch: int = 1) -> Pair:
        """Crops from the middle of test images."""
        self.setup()
        test = self.splits["test"]
        return _batch([self._cut(test[number % len(test)], (0.5, 0.5), self.size) for number in range(batch)])

    def describe(self) -> Description:
        """See `DataModule.describe`."""
        self.read()
        (height, width), bands = self.size, len(self.bands)
        coarse = f"{bands}×{height // self.ratio}×{width // self.ratio}"
        return self.described(
            shape=f"crops of {bands}×{height}×{width} from {coarse} and 1×{height}×{width}",
            for_model={
                "channels": bands,
                "bands": list(self.bands),
                "shown": list(self.shown),
                "white": self.white,
                "ratio": self.ratio,
                "image_size": list(self.size),
                "model_size": "micro" if max(self.size) <= MICRO else "tiny",
            },
            values=height * width + bands * height * width // self.ratio**2,
            resized_by="data.image_size",
            tested=self.tested,
        )

    def files(self) -> BandFiles:
        """What reads other images as these are read."""
        self.read()
        return BandFiles(self.white)

    @classmethod
    def reading(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """See `DataModule.reading`: how large, and how what is sharpened was made."""
        own = ("image_size", "ratio", "gain", "weights")
        return {**super().reading(settings), **{key: settings[key] for key in own if settings.get(key) is not None}}

    def _cut(self, scene: Scene, place: Sequence[float], size: tuple[int, int] | None) -> Pair:
        """Coarse, panchromatic and fine image of a crop, without the batch axis; as if the whole image had been blurred.

        Args:
            place: of the crop, 0 to 1 along each axis. size: of the crop; None: the whole image.
        """
        image, ratio = scene.read(), self.ratio
        whole = tuple(side // ratio * ratio for side in image.shape[1:])
        size = whole if size is None else size
        margin = ratio * -(-_reach(ratio, self.gain) // ratio)
        begin = [int(p * ((n - s) // ratio + 1)) * ratio for p, n, s in zip(place, whole, size, strict=True)]
        before = [min(margin, start) for start in begin]
        rows, columns = (
            slice(start - less, min(start + s + margin, n))
            for start, less, s, n in zip(begin, before, size, whole, strict=True)
        )
        area = torch.from_numpy(np.array(image[:, rows, columns], np.float32)) / self.white
        coarse = degraded(area, ratio, self.gain)
        fine = area[:, before[0] : before[0] + size[0], before[1] : before[1] + size[1]]
        top, left = (less // ratio for less in before)
        coarse = coarse[:, top : top + size[0] // ratio, left : left + size[1] // ratio]
        weights = torch.tensor([1.0] * len(image) if self.weights is None else list(self.weights))
        return coarse, torch.tensordot(weights / weights.sum(), fine, 1)[None], fine


def degraded(image: torch.Tensor, ratio: int, gain: float) -> torch.Tensor:
    """An image as a sensor of coarser pixels sees it: a Gaussian blur, then one value for each block of pixels, at its middle.

    Args:
        image: (bands, height, width), sides multiples of the ratio; beyond the border its last values go on.
        gain: of the blur at the coarse grid's highest frequency (Aiazzi et al. 2006, MTF-tailored filters).

    Returns:
        (bands, height / ratio, width / ratio).
    """
    reach = _reach(ratio, gain)
    offsets = torch.arange(ratio + 2 * reach) - (ratio + 2 * reach - 1) / 2
    kernel = torch.exp(-(offsets**2) / (2 * _deviation(ratio, gain) ** 2))
    kernel = (kernel / kernel.sum()).to(image.dtype)
    padded = functional.pad(image[:, None], (reach,) * 4, mode="replicate")
    rows = functional.conv2d(padded, kernel[None, None, :, None], stride=(ratio, 1))
    return functional.conv2d(rows, kernel[None, None, None], stride=(1, ratio))[:, 0]


def _deviation(ratio: int, gain: float) -> float:
    """Standard deviation, in fine pixels, of the Gaussian whose spectrum is `gain` at 1 / (2 ratio)."""
    return ratio / math.pi * math.sqrt(-2 * math.log(gain))


def _reach(ratio: int, gain: float) -> int:
    """Fine pixels beyond its own block that a coarse pixel sees."""
    return max(0, math.ceil(3 * _deviation(ratio, gain) - ratio / 2))


def _batch(found: Sequence[Sequence[torch.Tensor]]) -> Pair:
    return tuple(torch.stack(each).contiguous() for each in zip(*found, strict=True))
