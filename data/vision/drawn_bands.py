"""Scenes of four bands seen from above, made here: water, fields, roads and roofs by their colours, nothing to download."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from ...core.ranges import Fraction, Seed, Share, Side, Size, Weight, checked
from ..loading import Loading
from ..randomness import hashed
from .bands import BandData, Scene
from .drawn_shapes import silhouette
from .sources import DRAWN_BANDS

# What the materials send back of blue, green, red and near infrared light; chosen here, of the order of what is measured.
GROUNDS = np.array(
    [[0.07, 0.06, 0.04, 0.02], [0.04, 0.09, 0.05, 0.48], [0.06, 0.11, 0.08, 0.35], [0.10, 0.16, 0.22, 0.30]]
)
BUILT = np.array(
    [[0.27, 0.29, 0.31, 0.33], [0.10, 0.13, 0.29, 0.35], [0.40, 0.42, 0.43, 0.42], [0.12, 0.12, 0.12, 0.12]]
)
BRIGHTEST = 0.6  # what is sent back where white is 1
FINER = 2  # drawn pixels per pixel, along each axis: edges are mixtures


class DrawnBands(BandData):
    """Smooth areas of water, crops, grass and soil, with roads and roofs on them, all with a texture that the bands share.

    Args:
        loading, image_size, ratio, gain, weights, augment, crops: see `BandData`.
        side: height and width of the scenes, or one number for both.
        shapes: roofs in a scene at most.
        noise: standard deviation of what is added to each value of the fine image, where white is 1.
        train, val, test: scenes of each part.
        data_seed: seed of the scenes; apart from the run's seed, so that runs can be compared.
        name: the data set's name in results.
    """

    source = DRAWN_BANDS
    bands, shown = ("blue", "green", "red", "near infrared"), (2, 1, 0)

    @checked(group="data")
    def __init__(
        self,
        loading: Loading = Loading(batch_size=8),
        image_size: Side | Sequence[Side] = 32,
        ratio: Size = 4,
        gain: Fraction = 0.3,
        weights: Sequence[Weight] | None = (0.1, 0.3, 0.35, 0.25),
        augment: bool = True,
        crops: Size = 1,
        side: Side | Sequence[Side] = (64, 72),
        shapes: Size = 12,
        noise: Share = 0.004,
        train: Size = 128,
        val: Size = 8,
        test: Size = 16,
        data_seed: Seed = 0,
        name: str = "drawn_bands",
    ):
        super().__init__(name, loading, image_size, ratio, gain, weights, augment, crops)
        sides = (side, side) if isinstance(side, int) else tuple(side)
        self.sides = tuple(max(own, least) for own, least in zip(sides, self.size, strict=True))
        self.shapes, self.noise, self.data_seed = shapes, noise, data_seed
        self.counts = {"train": train, "val": val, "test": test}

    def load(self) -> dict[str, list[Scene]]:
        """Draw the scenes; see `BandData.load`."""
        return {
            split: [self._scene(f"{split} {number}", part, number) for number in range(count)]
            for part, (split, count) in enumerate(self.counts.items())
        }

    def _scene(self, name: str, part: int, number: int) -> Scene:
        random = np.random.default_rng(hashed(self.data_seed, part, number).item())
        image = scene(random, self.sides, self.shapes)
        image = image + self.noise * random.standard_normal(image.shape)
        return Scene(name, partial(np.asarray, image.clip(0, 1).astype(np.float32)))


def scene(random: np.random.Generator, sides: tuple[int, int], shapes: int) -> np.ndarray:
    """A scene without noise, float (4, height, width), about 0 to 1."""
    height, width = (FINER * side for side in sides)
    heights = np.stack([smooth(random, (height, width), 3.0) for _ in GROUNDS]) + random.normal(0, 0.7, (4, 1, 1))
    image = GROUNDS[heights.argmax(0)].transpose(2, 0, 1)
    y, x = np.mgrid[:height, :width]
    for _ in range(random.integers(0, 3)):
        angle, wide = random.uniform(0, np.pi), random.uniform(1, 4)
        across = np.cos(angle) * (x - random.uniform(0, width)) + np.sin(angle) * (y - random.uniform(0, height))
        image[:, np.abs(across) < wide] = BUILT[3][:, None]
    for _ in range(random.integers(1, shapes + 1)):
        place = (random.uniform(0, height), random.uniform(0, width), random.uniform(4, 14), random.uniform(0, np.pi))
        inside = silhouette(int(random.integers(1, 6)), (height, width), *place)
        image[:, inside] = BUILT[random.integers(3)][:, None] * random.uniform(0.7, 1.2)
    light = 1 + 0.1 * smooth(random, (height, width), 2.0) + 0.12 * smooth(random, (height, width), 40.0)
    image = (image * light / BRIGHTEST).reshape(4, height // FINER, FINER, width // FINER, FINER)
    return image.mean((2, 4))


def smooth(random: np.random.Generator, sides: tuple[int, int], waves: float) -> np.ndarray:
    """Waves in all directions, up to so many across the image, (height, width); about 1 strong."""
    down, across = random.uniform(-waves, waves, (2, 12)) * 2 * np.pi / max(sides)
    down = np.outer(np.arange(sides[0]), down) + random.uniform(0, 2 * np.pi, 12)
    across = np.outer(np.arange(sides[1]), across)
    return (np.sin(down) @ np.cos(across).T + np.cos(down) @ np.sin(across).T) / 6**0.5
