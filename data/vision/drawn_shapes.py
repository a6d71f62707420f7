"""Scenes of coloured shapes on a textured ground, made here: images with a class for each pixel, nothing to download."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from ...core.ranges import Seed, Share, Side, Size, checked
from ..loading import Loading
from ..randomness import hashed
from .masks import MaskData, Masked
from .sources import DRAWN_SHAPES


class DrawnShapes(MaskData):
    """Discs, squares, triangles, rings and crosses of any colour and size, one over the other, on a ground of waves and noise.

    A class says a form; colours say nothing.

    Args:
        loading, image_size, augment, channels, crops: see `MaskData`.
        side: height and width of the scenes, or one number for both.
        shapes: in a scene at most.
        noise: standard deviation of what is added to each pixel, where white is 1.
        train, val, test: scenes of each part; those for training are made anew in each epoch, lest they be learned by heart.
        data_seed: seed of the scenes; apart from the run's seed, so that runs can be compared.
        name: the data set's name in results.
    """

    source = DRAWN_SHAPES
    mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    classes = ("ground", "disc", "square", "triangle", "ring", "cross")

    @checked(group="data")
    def __init__(
        self,
        loading: Loading = Loading(batch_size=8),
        image_size: Side | Sequence[Side] = 64,
        augment: bool = True,
        channels: Size = 3,
        crops: Size = 1,
        side: Side | Sequence[Side] = (96, 80),
        shapes: Size = 6,
        noise: Share = 0.08,
        train: Size = 200,
        val: Size = 20,
        test: Size = 40,
        data_seed: Seed = 0,
        name: str = "drawn_shapes",
    ):
        super().__init__(name, loading, image_size, augment, channels, crops)
        self.sides = (side, side) if isinstance(side, int) else tuple(side)
        self.shapes, self.noise, self.data_seed = shapes, noise, data_seed
        self.counts = {"train": train, "val": val, "test": test}

    def load(self) -> dict[str, list[Masked]]:
        """Draw the scenes; see `MaskData.load`."""
        return {
            split: [self._scene(f"{split} {number}", part, number) for number in range(count)]
            for part, (split, count) in enumerate(self.counts.items())
        }

    def sample(self, split: str, epoch: int, number: int) -> Masked:
        if split != "train" or not epoch:
            return super().sample(split, epoch, number)
        return self._scene(f"{split} {number}, epoch {epoch}", 0, number, epoch)

    def _scene(self, name: str, *key: int) -> Masked:
        """`key` tells it from all other scenes: its part, its number, and perhaps an epoch."""
        random = np.random.default_rng(hashed(self.data_seed, *key).item())
        image, mask = ground(random, self.sides), np.zeros(self.sides, np.uint8)
        for _ in range(random.integers(1, self.shapes + 1)):
            form = int(random.integers(1, len(self.classes)))
            inside = silhouette(form, self.sides, *_somewhere(random, self.sides))
            image[:, inside] = random.uniform(0, 1, (3, 1)) + 0.05 * random.standard_normal((3, int(inside.sum())))
            mask[inside] = form
        image = image + self.noise * random.standard_normal(image.shape)
        pixels = (255 * image).clip(0, 255).astype(np.uint8)
        return Masked(name, partial(_same, pixels, mask))


def ground(random: np.random.Generator, sides: tuple[int, int]) -> np.ndarray:
    """Waves of a colour, float (3, height, width)."""
    y, x = np.mgrid[: sides[0], : sides[1]] / max(sides)
    wave = sum(
        np.sin(2 * np.pi * (random.uniform(-6, 6) * x + random.uniform(-6, 6) * y + random.uniform())) for _ in range(3)
    )
    return random.uniform(0.2, 0.8, (3, 1, 1)) + 0.08 * wave * random.uniform(0.3, 1, (3, 1, 1))


def silhouette(form: int, sides: tuple[int, int], row: float, column: float, radius: float, angle: float) -> np.ndarray:
    """Which pixels a form (1 disc, 2 square, 3 triangle, 4 ring, 5 cross) covers, bool (height, width)."""
    y, x = np.mgrid[: sides[0], : sides[1]]
    y, x = (y + 0.5 - row) / radius, (x + 0.5 - column) / radius
    x, y = x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)
    far, wide = np.hypot(x, y), np.maximum(np.abs(x), np.abs(y))
    if form == 1:
        return far <= 1
    if form == 2:
        return wide <= 0.85
    if form == 3:
        return (y >= -0.6) & (np.sqrt(3) * np.abs(x) + y <= 1.2)
    if form == 4:
        return (far <= 1) & (far >= 0.55)
    return (wide <= 1) & (np.minimum(np.abs(x), np.abs(y)) <= 0.3)


def _somewhere(random: np.random.Generator, sides: tuple[int, int]) -> tuple[float, float, float, float]:
    """A row, a column, a radius and an angle."""
    radius = random.uniform(0.1, 0.28) * min(sides)
    return (*(random.uniform(0, side) for side in sides), radius, random.uniform(0, 2 * np.pi))


def _same(image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return image, mask
