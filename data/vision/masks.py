"""Images with a class for each pixel: what all of their data sets share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch.nn import functional

from ...core.errors import UserError
from ...core.ranges import Range, Side, Size, checked
from ..loading import EpochSampler, Loading
from ..module import DataModule, Description
from ..randomness import uniforms
from .augmentation import to_channels
from .mask_files import MaskedPhotos

IGNORED = 255  # of a pixel whose class is neither learnt nor counted
CROPS = 21  # stream of random numbers
MICRO = 128  # crops up to this many pixels a side ask for the micro model


@dataclass(frozen=True)
class Masked:
    """An image and its classes, read when they are asked for.

    Args:
        name: of the image.
        read: gives uint8 (channels, height, width), and the class of each pixel, uint8 (height, width), 255 where it is not known.
    """

    name: str
    read: Callable[[], tuple[np.ndarray, np.ndarray]]


class MaskData(DataModule):
    """Base of the data modules of images with a class for each pixel: a subclass says where they come from, with `load()`.

    A training batch is crops and their classes: float32 (batch, channels, height, width) and int64 (batch, height, width), 255
    where a class is not known. Validation and test batches are one whole image of any size.

    Args:
        name: the data set's name in results.
        loading: how batches are made.
        image_size: height and width of a crop, and of the windows that slide over larger images, or one number for both.
        augment: crops at 0.75 to 1.33 times their size, mirrored, lighter or darker; False: from the middle.
        channels: 1 or 3.
        crops: of each image in an epoch.
    """

    classes: Sequence[str]
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    tested = "the test part"

    @checked(group="data")
    def __init__(
        self,
        name: str,
        loading: Loading,
        image_size: Side | Sequence[Side],
        augment: bool = True,
        channels: Size = 3,
        crops: Size = 1,
    ):
        super().__init__(name, loading)
        sides = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
        if len(sides) != 2:
            raise UserError(
                "data.image_size does not fit", given=image_size, allowed="a number of pixels, or [height, width]"
            )
        Range(1, 3).check(channels, "data.channels")
        if channels == 2:
            raise UserError("data.channels does not fit", given=channels, allowed=[1, 3])
        self.size, self.augment, self.channels, self.crops = sides, augment, channels, crops
        self.splits: dict[str, list[Masked]] | None = None

    @abstractmethod
    def load(self) -> dict[str, list[Masked]]:
        """The images of train, val and test; raises UserError naming the file that is wrong."""

    def setup(self, stage: str | None = None) -> None:
        """List the images, once."""
        if self.splits is not None:
            return
        splits, limit = self.load(), self.loading.limit
        for split, images in splits.items():
            if not images:
                raise UserError(f"{self.name} has no {split} images", do="add images, or raise data.val_fraction")
        self.splits = {split: images[:limit] for split, images in splits.items()}

    def samples(self, split: str) -> int:
        """Crops of the training images; images of the others."""
        return len(self.splits[split]) * (self.crops if split == "train" else 1)

    def sampler(self, split: str, rank: int, ranks: int) -> EpochSampler:
        """See `DataModule.sampler`; whole images come one at a time."""
        size = self.loading.batch_size if split == "train" else 1
        return EpochSampler(self.samples(split), size, self.loading.seed, split == "train", rank, ranks)

    def load_batch(self, split: str, epoch: int, positions: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """See the class."""
        count = len(self.splits[split])
        pairs = [self.sample(split, epoch, int(position) % count).read() for position in positions]
        if split == "train":
            draws = uniforms(7, self.loading.seed, CROPS, epoch, positions) if self.augment else [None] * len(positions)
            pairs = [self._crop(*pair, each) for pair, each in zip(pairs, draws, strict=True)]
        images = self.finish([torch.from_numpy(image) for image, _ in pairs])
        return images, torch.from_numpy(np.stack([mask for _, mask in pairs]).astype(np.int64))

    def sample(self, split: str, epoch: int, number: int) -> Masked:
        """An image of a part and its mask."""
        return self.splits[split][number]

    def example(self, batch: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
        """Crops from the middle of test images."""
        self.setup()
        test = self.splits["test"]
        pairs = [self._crop(*test[number % len(test)].read(), None) for number in range(batch)]
        images = self.finish([torch.from_numpy(image) for image, _ in pairs])
        return images, torch.from_numpy(np.stack([mask for _, mask in pairs]).astype(np.int64))

    def finish(self, images: Sequence[torch.Tensor]) -> torch.Tensor:
        """uint8 images (1 or 3 channels, height, width) of one size to normalised float32 (batch, channels, height, width)."""
        mean, std = (torch.tensor(each).view(1, -1, 1, 1) for each in self.statistics())
        return (to_channels(torch.stack(list(images)), self.channels).float() / 255 - mean) / std

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel that the model sees, for pixels in [0, 1]."""
        if len(self.mean) == self.channels:
            return self.mean, self.std
        if self.channels == 3:
            return self.mean * 3, self.std * 3
        return (sum(self.mean) / 3,), (sum(self.std) / 3,)

    def describe(self) -> Description:
        """See `DataModule.describe`."""
        self.read()
        mean, std = self.statistics()
        height, width = self.size
        return self.described(
            shape=f"crops of {self.channels}×{height}×{width}, {len(self.classes)} classes",
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

    def photos(self) -> MaskedPhotos:
        """What opens and prepares images from anywhere as the test images are prepared; reads nothing."""
        return MaskedPhotos(partial(self.finish))

    def _crop(self, image: np.ndarray, mask: np.ndarray, draws: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """A crop of the model's size, filled up with black and unknown pixels where the image is smaller.

        Args:
            draws: (7,) uniform numbers: place (2), size, mirror, brightness, contrast, and one not used; None: the middle.
        """
        (height, width), scale = self.size, 1.0 if draws is None else float(np.exp((2 * draws[2] - 1) * np.log(4 / 3)))
        rows, columns = (max(1, round(side / scale)) for side in (height, width))
        place = (0.5, 0.5) if draws is None else draws[:2]
        top, left = (
            round(p * max(0, size - cut)) for p, size, cut in zip(place, mask.shape, (rows, columns), strict=True)
        )
        image, mask = image[:, top : top + rows, left : left + columns], mask[top : top + rows, left : left + columns]
        below, right = rows - mask.shape[0], columns - mask.shape[1]
        if below or right:
            image = np.pad(image, ((0, 0), (0, below), (0, right)))
            mask = np.pad(mask, ((0, below), (0, right)), constant_values=IGNORED)
        if scale != 1:
            image, mask = _resized(image, "bilinear", self.size), _resized(mask[None], "nearest-exact", self.size)[0]
        if draws is not None:
            if draws[3] < 0.5:
                image, mask = image[..., ::-1], mask[..., ::-1]
            contrast, brightness = 0.8 + 0.4 * draws[4], 40 * (draws[5] - 0.5)
            image = ((image - 127.5) * contrast + 127.5 + brightness).clip(0, 255).astype(np.uint8)
        return np.ascontiguousarray(image), np.ascontiguousarray(mask)


def _resized(values: np.ndarray, mode: str, size: tuple[int, int]) -> np.ndarray:
    given = torch.from_numpy(np.ascontiguousarray(values))[None].float()
    more = {"antialias": True} if mode == "bilinear" else {}
    return functional.interpolate(given, size, mode=mode, **more)[0].round().clamp(0, 255).to(torch.uint8).numpy()
