"""Point clouds: what all of their data sets share, and solids whose surfaces are sampled here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ...core.ranges import Seed, Share, Size, checked
from ..loading import Loading
from ..module import Description
from ..randomness import hashed, uniforms
from .cloud_files import CloudFiles, normalised
from .labelled import Labelled
from .sources import SOLIDS

MICRO = 512  # up to this many points a cloud, the data set asks for the micro model
CHOICE, MOVES = 11, 12  # streams of random numbers


@dataclass(frozen=True)
class Clouds:
    """points: float32 (samples, points, 3), around the origin and within 1 of it. labels: int64 (samples,)."""

    points: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: np.ndarray) -> Clouds:
        """The samples at these positions, (count,)."""
        index = torch.from_numpy(positions)
        return Clouds(self.points[index], self.labels[index])


class CloudData(Labelled):
    """Base of the data modules of point clouds: a subclass says where they come from, with `load()`.

    Batches are (points, labels): float32 (batch, points, 3), around the origin and within 1 of it where they are not varied, and
    int64 (batch,).

    Args:
        name, loading, split_seed: see `Labelled`.
        points: of a cloud, drawn from those there are, for training others each time; None: all of them.
        augment: training clouds are stretched along each axis, by 2/3 to 3/2, and moved by up to 0.2 (as PointMamba's are).
    """

    what = "clouds"
    classes: Sequence[str]
    own_points: int

    @checked(group="data")
    def __init__(
        self, name: str, loading: Loading, points: Size | None = None, augment: bool = True, split_seed: Seed = 0
    ):
        super().__init__(name, loading, split_seed)
        self.points, self.augment = min(points or self.own_points, self.own_points), augment

    def load_batch(self, split: str, epoch: int, positions: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Points and labels; see the class."""
        part, index, train = self.splits[split], torch.from_numpy(positions), split == "train"
        points, seed = part.points[index], self.loading.seed
        if self.points < points.shape[1]:
            # of a test cloud the same points each time
            keys = hashed(seed, CHOICE, epoch if train else 0, positions)[:, None]
            kept = torch.from_numpy(hashed(keys, np.arange(points.shape[1])[None]).argsort(1, kind="stable"))
            points = points.gather(1, kept[:, : self.points, None].expand(-1, -1, 3))
        if train and self.augment:
            draws = torch.from_numpy(uniforms(6, seed, MOVES, epoch, positions)).float()[:, None]
            points = points * (2 / 3 + draws[..., :3] * 5 / 6) + 0.4 * (draws[..., 3:] - 0.5)
        return points, part.labels[index]

    def describe(self) -> Description:
        """See `DataModule.describe`."""
        self.read()
        return self.described(
            shape=f"{self.points} points, {len(self.classes)} classes",
            for_model={
                "points": self.points,
                "classes": list(self.classes),
                "num_classes": len(self.classes),
                "model_size": "micro" if self.points <= MICRO else "full",
            },
            values=3 * self.points,
            resized_by="data.points",
        )

    def photos(self) -> CloudFiles:
        """What opens and prepares clouds from anywhere as the test clouds are prepared; reads nothing."""
        return CloudFiles(self.points)


class Solids(CloudData):
    """Points on the surfaces of ten kinds of solids, each stretched, turned about its upright axis, blurred; nothing to download.

    Args:
        loading, points, augment, split_seed: see `CloudData`.
        turn: largest turn about the upright axis, as a share of a whole one to both sides.
        noise: standard deviation of what is added to each point, where a cloud is within 1 of the origin.
        train, val, test: clouds of each part.
        data_seed: seed of the clouds; apart from the run's seed, so that runs can be compared.
        name: the data set's name in results.
    """

    source = SOLIDS
    own_points = 256

    @checked(group="data")
    def __init__(
        self,
        loading: Loading = Loading(batch_size=32),
        points: Size | None = None,
        augment: bool = True,
        turn: Share = 0.5,
        noise: Share = 0.02,
        train: Size = 1200,
        val: Size = 200,
        test: Size = 400,
        data_seed: Seed = 0,
        split_seed: Seed = 0,
        name: str = "solids",
    ):
        super().__init__(name, loading, points, augment, split_seed)
        self.turn, self.noise, self.data_seed = turn, noise, data_seed
        self.counts = {"train": train, "val": val, "test": test}
        self.classes = tuple(SURFACES)

    def load(self) -> dict[str, Clouds]:
        """Sample the clouds; see `Labelled.load`."""
        return {split: self._part(part, count) for part, (split, count) in enumerate(self.counts.items())}

    def _part(self, part: int, count: int) -> Clouds:
        labels, clouds = np.arange(count) % len(SURFACES), np.empty((count, self.own_points, 3), np.float32)
        for number, label in enumerate(labels):
            random = np.random.default_rng(hashed(self.data_seed, part, number).item())
            points = list(SURFACES.values())[label](random, self.own_points) * random.uniform(0.6, 1.0, 3)
            angle = 2 * np.pi * self.turn * random.uniform(-1, 1)
            turned = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
            clouds[number] = normalised(points @ turned.T) + self.noise * random.standard_normal(points.shape)
        return Clouds(torch.from_numpy(clouds), torch.from_numpy(labels))


def _sphere(random: np.random.Generator, count: int) -> np.ndarray:
    points = random.standard_normal((count, 3))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def _box(random: np.random.Generator, count: int) -> np.ndarray:
    points, face = random.uniform(-1, 1, (count, 3)), random.integers(0, 6, count)
    points[np.arange(count), face % 3] = np.where(face < 3, -1, 1)
    return points


def _around(random: np.random.Generator, height: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Points at these heights and distances from the upright axis."""
    angle = random.uniform(0, 2 * np.pi, len(height))
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), height], 1)


def _cylinder(random: np.random.Generator, count: int) -> np.ndarray:
    cap, height, radius = (
        random.uniform(size=count) < 1 / 3,
        random.uniform(-1, 1, count),
        np.sqrt(random.uniform(size=count)),
    )
    return _around(random, np.where(cap, np.sign(height), height), np.where(cap, radius, 1))


def _cone(random: np.random.Generator, count: int) -> np.ndarray:
    base, radius = random.uniform(size=count) < 0.3, np.sqrt(random.uniform(size=count))
    return _around(random, np.where(base, -1, 1 - 2 * radius), radius)


def _torus(random: np.random.Generator, count: int) -> np.ndarray:
    angle = random.uniform(0, 2 * np.pi, count)
    return _around(random, 0.35 * np.sin(angle), 0.7 + 0.35 * np.cos(angle))


def _pyramid(random: np.random.Generator, count: int) -> np.ndarray:
    points = _box(random, count)
    inward = (1 - points[:, 2:]) / 2
    points[:, :2] *= np.where(points[:, 2:] == -1, 1, inward)
    return points


def _capsule(random: np.random.Generator, count: int) -> np.ndarray:
    points = _sphere(random, count) * 0.6
    points[:, 2] += (
        np.where(random.uniform(size=count) < 0.5, np.sign(points[:, 2]), random.uniform(-1, 1, count)) * 0.6
    )
    return points


def _table(random: np.random.Generator, count: int) -> np.ndarray:
    points, leg = random.uniform(-1, 1, (count, 3)), random.uniform(size=count) < 0.4
    corners = np.sign(points[:, :2]) * 0.85 + 0.08 * points[:, [1, 0]]
    points[:, :2] = np.where(leg[:, None], corners, points[:, :2])
    points[:, 2] = np.where(leg, points[:, 2], 1)
    return points


def _stairs(random: np.random.Generator, count: int) -> np.ndarray:
    points, riser = random.uniform(-1, 1, (count, 3)), random.uniform(size=count) < 0.5
    step = np.floor((points[:, 0] + 1) * 2) / 2 - 1
    points[:, 2] = np.where(riser, step + 0.5 * random.uniform(size=count), step + 0.5)
    points[:, 0] = np.where(riser, step, points[:, 0])
    return points


def _spiral(random: np.random.Generator, count: int) -> np.ndarray:
    along = random.uniform(-1, 1, count)
    angle = 3 * np.pi * along
    return np.stack([0.8 * np.cos(angle), 0.8 * np.sin(angle), along], 1) + 0.08 * random.standard_normal((count, 3))


SURFACES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "sphere": _sphere, "box": _box, "cylinder": _cylinder, "cone": _cone, "torus": _torus, "pyramid": _pyramid,
    "capsule": _capsule, "table": _table, "stairs": _stairs, "spiral": _spiral,
}  # fmt: skip
