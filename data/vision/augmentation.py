"""From uint8 images to what a vision model sees: augmentation, size, channels, normalisation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Literal

import numpy as np
import torch
from torch.nn import functional

from ...core.errors import UserError, check_choice
from ...core.ranges import Share, check_fields
from ..randomness import hashed, own_randomness, uniforms
from .decoding import ImageFile, open_image

KINDS = ("none", "light", "standard")
RAND_AUGMENT = "rand-m9-mstd0.5-inc1"
ERASING = 0.25
LUMA = (0.299, 0.587, 0.114)

# streams of random numbers, so that no two uses share theirs; stream 0 is the order of the batches
GEOMETRY, SAMPLES, ERASE = 1, 2, 3


@dataclass(frozen=True)
class Augmentation:
    """How training images are varied.

    Args:
        kind: none; light: moves and mirror images as suit the data set; standard: light, then timm's RandAugment and
            random erasing.
        rand_augment: timm's name of a policy (rand-…, augmix-…, original, 3a, …); None: the usual RandAugment. Only with standard.
        erasing: probability that a rectangle is erased; None: 0.25. Only with standard.
    """

    kind: Literal["none", "light", "standard"] = "light"
    rand_augment: str | None = None
    erasing: Share | None = None

    def __post_init__(self) -> None:
        check_choice("data.augmentation.kind", self.kind, KINDS, "augmentation")
        check_fields(self, "data.augmentation")
        given = {name: value for name in ("rand_augment", "erasing") if (value := getattr(self, name)) is not None}
        if given and self.kind != "standard":
            raise UserError(
                f"data.augmentation.{next(iter(given))} belongs to the standard augmentation",
                given=f"data.augmentation.kind={self.kind}",
                do="data.augmentation.kind=standard",
            )

    @property
    def policy(self) -> str | None:
        """The RandAugment policy that applies."""
        return (self.rand_augment or RAND_AUGMENT) if self.kind == "standard" else None

    @property
    def erase(self) -> float:
        """The probability of erasing that applies."""
        if self.kind != "standard":
            return 0.0
        return ERASING if self.erasing is None else self.erasing


LIGHT = Augmentation()


@dataclass(frozen=True)
class Geometry:
    """How far the light augmentation moves images.

    Args:
        shift: largest shift in pixels, to every side.
        flip: mirror every second image left to right.
        rotate: largest turn in degrees, to both sides.
        scale: largest change of size, as a fraction.
    """

    shift: int = 0
    flip: bool = False
    rotate: float = 0.0
    scale: float = 0.0

    def __call__(self, images: torch.Tensor, seed: int, epoch: int, positions: np.ndarray) -> torch.Tensor:
        """Move a batch of images, each by its own amount, with zeros beyond the border.

        Args:
            images: uint8, (batch, channels, height, width).
            seed, epoch, positions: what the amounts depend on; positions has shape (batch,).

        Returns:
            uint8 of the same shape.
        """
        draws = uniforms(5, seed, GEOMETRY, epoch, positions)
        flipped = (draws[:, 2] < 0.5) & self.flip
        if self.rotate or self.scale:
            return self._warp(images, draws, flipped)
        return self._crop(images, draws, flipped)

    def _crop(self, images: torch.Tensor, draws: np.ndarray, flipped: np.ndarray) -> torch.Tensor:
        height, width = images.shape[-2:]
        padded = functional.pad(images, (self.shift,) * 4)
        top, left = (draws[:, :2].T * (2 * self.shift + 1)).astype(np.int64)[:, :, None]
        rows = torch.from_numpy(top + np.arange(height))
        columns = np.where(flipped[:, None], left + np.arange(width)[::-1], left + np.arange(width))
        batch = torch.arange(len(images))[:, None, None]
        moved = padded[batch, :, rows[:, :, None], torch.from_numpy(columns)[:, None, :]]
        return moved.permute(0, 3, 1, 2).contiguous()

    def _warp(self, images: torch.Tensor, draws: np.ndarray, flipped: np.ndarray) -> torch.Tensor:
        height, width = images.shape[-2:]
        between = 2 * draws - 1
        angle, size = np.deg2rad(self.rotate) * between[:, 3], 1 + self.scale * between[:, 4]
        mirror = np.where(flipped, -1.0, 1.0)
        cosine, sine = np.cos(angle) / size, np.sin(angle) / size
        across, down = between[:, :2].T * self.shift
        theta = np.stack(
            [
                np.stack([mirror * cosine, -sine * height / width, across * 2 / width], -1),
                np.stack([mirror * sine * width / height, cosine, down * 2 / height], -1),
            ],
            axis=1,
        )
        grid = functional.affine_grid(torch.from_numpy(theta).float(), list(images.shape), align_corners=False)
        moved = functional.grid_sample(images.float(), grid, align_corners=False)
        return moved.round_().to(torch.uint8)


class Finish:
    """The last steps, for a whole batch: number of channels, normalisation, erasing.

    Args:
        mean, std: of each channel, for pixels in [0, 1].
        seed: seed of the erasing.
        erase: probability that a rectangle of an image is filled with noise (Zhong et al. 2017).
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], seed: int = 0, erase: float = 0.0):
        self.mean = torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1)
        self.std = torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1)
        self.seed, self.erase = seed, erase

    def __call__(self, images: torch.Tensor, epoch: int, positions: np.ndarray) -> torch.Tensor:
        """uint8 images (batch, any channels, height, width) to normalised float32 ones (batch, channels, height, width)."""
        images = to_channels(images, self.mean.shape[1]).float()
        images = images.mul_(1 / (255 * self.std)).sub_(self.mean / self.std)
        if self.erase:
            from timm.data.random_erasing import RandomErasing

            erasing = RandomErasing(self.erase, mode="pixel", device="cpu")
            with own_randomness() as seed:
                for image, key in zip(images, hashed(self.seed, ERASE, epoch, positions).tolist(), strict=True):
                    seed(key)
                    erasing(image)
        return images


class ArrayPreparation:
    """Batches out of images that are in memory.

    Args:
        images: uint8, (samples, channels, height, width).
        size: (height, width) the model sees.
        finish: last steps.
        geometry: light augmentation; None for images that are not varied.
        policy: timm's name of a RandAugment policy, or None.
        seed: seed of the augmentation.
    """

    def __init__(
        self,
        images: torch.Tensor,
        size: tuple[int, int],
        finish: Finish,
        geometry: Geometry | None = None,
        policy: str | None = None,
        seed: int = 0,
    ):
        self.images, self.size, self.finish = images, size, finish
        self.geometry, self.seed = geometry, seed
        self.vary = rand_augment(policy, size, finish) if policy is not None else None

    def __call__(self, epoch: int, positions: np.ndarray) -> torch.Tensor:
        """The batch of the samples at these positions, (batch,): float32 of (batch, channels, height, width)."""
        images = self.images[torch.from_numpy(positions)]
        if self.geometry is not None:
            images = self.geometry(images, self.seed, epoch, positions)
        if images.shape[-2:] != self.size:
            images = functional.interpolate(images, self.size, mode="bilinear", antialias=True)
        if self.vary is not None:
            images = self._rand_augment(images, epoch, positions)
        return self.finish(images, epoch, positions)

    def _rand_augment(self, images: torch.Tensor, epoch: int, positions: np.ndarray) -> torch.Tensor:
        from PIL import Image

        pixels = to_channels(images, 3).permute(0, 2, 3, 1).numpy()
        varied = np.empty_like(pixels, order="C")
        with own_randomness() as seed:
            for i, key in enumerate(hashed(self.seed, SAMPLES, epoch, positions).tolist()):
                seed(key)
                varied[i] = self.vary(Image.fromarray(np.ascontiguousarray(pixels[i])))
        return torch.from_numpy(varied).permute(0, 3, 1, 2)


class FilePreparation:
    """Batches out of image files.

    Args:
        paths: of the samples.
        size: (height, width) the model sees.
        finish: last steps.
        augmentation: how to vary the images; None: the middle of each image, as is usual for evaluation.
        seed: seed of the augmentation.
        crop: the share of an image's smaller side that the middle is (timm's crop_pct); None: timm's, 0.875.
    """

    def __init__(
        self,
        paths: Sequence[ImageFile],
        size: tuple[int, int],
        finish: Finish,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        crop: float | None = None,
    ):
        self.paths, self.size, self.finish, self.seed, self.crop = paths, size, finish, seed, crop
        self.vary = self._transform(augmentation)

    def __call__(self, epoch: int, positions: np.ndarray) -> torch.Tensor:
        """The batch of the samples at these positions, (batch,): float32 of (batch, channels, height, width)."""
        images = np.empty((len(positions), 3, *self.size), np.uint8)
        with own_randomness() as seed:
            for i, key in enumerate(hashed(self.seed, SAMPLES, epoch, positions).tolist()):
                seed(key)
                images[i] = self.vary(open_image(self.paths[positions[i]]))
        return self.finish(torch.from_numpy(images), epoch, positions)

    def _transform(self, augmentation: Augmentation | None) -> Callable:
        from timm.data import create_transform

        # use_prefetcher leaves conversion, normalisation and erasing to the batch: see Finish
        usual = {"input_size": (3, *self.size), "use_prefetcher": True, "interpolation": "bicubic"}
        if augmentation is None:
            return create_transform(**usual, crop_pct=self.crop)
        scale = (0.08, 1.0) if augmentation.policy else (0.35, 1.0)
        transform = create_transform(**usual, is_training=True, scale=scale, color_jitter=None)
        if augmentation.policy:
            # between timm's crop and mirror, which work on images, and its last step, which makes an array
            transform.transforms.insert(-1, rand_augment(augmentation.policy, self.size, self.finish))
        return transform


def rand_augment(policy: str, size: tuple[int, int], finish: Finish) -> Callable:
    """timm's RandAugment, AutoAugment or AugMix: a function from a PIL image to a PIL image.

    Raises:
        UserError: timm does not know the policy.
    """
    from timm.data import auto_augment

    mean = finish.mean.flatten().tolist()
    fill = tuple(round(255 * value) for value in (mean if len(mean) == 3 else mean * 3))
    settings = {"translate_const": int(min(size) * 0.45), "img_mean": fill}
    makers = {"rand": auto_augment.rand_augment_transform, "augmix": auto_augment.augment_and_mix_transform}
    try:
        transform = makers.get(policy.split("-")[0], auto_augment.auto_augment_transform)(policy, settings)
    except (AssertionError, KeyError, ValueError) as error:
        raise UserError(
            "timm does not know the policy in data.augmentation.rand_augment",
            given=policy,
            allowed=f"for example {RAND_AUGMENT}",
        ) from error
    operations = [*getattr(transform, "ops", ()), *chain.from_iterable(getattr(transform, "policy", ()))]
    for operation in operations:
        if operation.name.startswith("Posterize"):
            operation.level_fn = partial(_bits, operation.level_fn)
    return transform


def _bits(level_fn: Callable, magnitude: float, settings: dict) -> tuple[int]:
    """timm's strongest posterising keeps 0 bits of a pixel, which Pillow 13 refuses: keep one."""
    return (max(level_fn(magnitude, settings)[0], 1),)


def to_channels(images: torch.Tensor, channels: int) -> torch.Tensor:
    """Images (batch, 1 or 3 channels, height, width) with `channels` channels, 1 (luma, ITU-R BT.601) or 3."""
    if images.shape[1] == channels:
        return images
    if channels == 3:
        return images.expand(-1, 3, -1, -1)
    weights = torch.tensor(LUMA).view(1, 3, 1, 1)
    return (images.float() * weights).sum(1, keepdim=True).round_().to(images.dtype)
