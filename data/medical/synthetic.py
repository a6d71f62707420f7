"""MONAI's generated volumes: balls in noise, labelled voxel by voxel or counted; nothing to download."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...core.errors import UserError
from ...core.ranges import Count, Seed, Share, Size, Weight, checked
from ..loading import Loading
from ..randomness import hashed
from .cases import Case
from .classification import ClassificationData, Labelled
from .plan import Plan, resampled
from .segmentation import SegmentationData
from .sources import SYNTHETIC_CLASSES, SYNTHETIC_VOLUMES


class SyntheticVolumes(SegmentationData):
    """Balls whose brightness says their class, in MONAI's noise and more noise of a normal distribution.

    Args:
        loading, patch_size, foreground, augment, patches: SegmentationData's.
        axes: 3: volumes; 2: images.
        side: voxels along each axis, one number or one an axis.
        balls: in each volume. materials: classes beside the background.
        noise: standard deviation of what is added, where a volume's values lie between 0 and 1.
        train, val, test: volumes of each part.
        data_seed: seed of the volumes; apart from the run's seed, so that runs can be compared.
        name: the data set's name in results.
    """

    source = SYNTHETIC_VOLUMES

    @checked(group="data")
    def __init__(
        self,
        loading: Loading = Loading(batch_size=2),
        patch_size: Size | Sequence[Size] | None = None,
        foreground: Share = 0.33,
        augment: bool = True,
        patches: Size = 2,
        axes: int = 3,
        side: Size | Sequence[Size] = 48,
        balls: Count = 8,
        materials: Size = 2,
        noise: Weight = 0.2,
        train: Size = 32,
        val: Size = 4,
        test: Size = 8,
        data_seed: Seed = 0,
        name: str = "synthetic_volumes",
    ):
        super().__init__(name, loading, patch_size, foreground, augment, patches)
        self.sizes = checked_sides(axes, side)
        self.axes, self.balls, self.materials, self.noise = axes, balls, materials, noise
        self.counts, self.data_seed = {"train": train, "val": val, "test": test}, data_seed

    def make_plan(self) -> Plan:
        side = 32 if self.axes == 3 else 64
        names = ("background", *(f"material {number}" for number in range(1, self.materials + 1)))
        patch = self.patch_of(self.axes, [min(side, size // 4 * 4) for size in self.sizes])
        return Plan(self.axes, patch, names, tuple(range(len(names))), spacing=(1.0,) * self.axes)

    def load(self, plan: Plan) -> dict[str, list[Case]]:
        parts = enumerate(self.counts.items())
        return {
            split: [self._case(plan, f"{split} {number}", (part, number)) for number in range(count)]
            for part, (split, count) in parts
        }

    def _case(self, plan: Plan, name: str, key: tuple[int, int]) -> Case:
        image, labels = balls_in_noise(self.sizes, self.balls, self.materials, self.noise, (self.data_seed, *key))
        return Case(name, plan.normalised(image[None]), labels.astype(np.uint8))


class SyntheticClasses(ClassificationData):
    """Few balls or many, in noise: the class is their number.

    Args:
        loading, image_size, augment: ClassificationData's.
        axes: 3: volumes; 2: images.
        side: voxels along each axis, one number or one an axis.
        balls: of many; few are a third of them, rounded up.
        noise: standard deviation of what is added, where a volume's values lie between 0 and 1.
        train, val, test: volumes of each part, half of them with few balls.
        data_seed: seed of the volumes; apart from the run's seed, so that runs can be compared.
        name: the data set's name in results.
    """

    source = SYNTHETIC_CLASSES

    @checked(group="data")
    def __init__(
        self,
        loading: Loading = Loading(batch_size=16),
        image_size: Size | Sequence[Size] | None = None,
        augment: bool = True,
        axes: int = 2,
        side: Size | Sequence[Size] = 48,
        balls: Count = 12,
        noise: Weight = 0.2,
        train: Size = 512,
        val: Size = 64,
        test: Size = 128,
        data_seed: Seed = 0,
        name: str = "synthetic_classes",
    ):
        super().__init__(name, loading, image_size, augment)
        self.sizes = checked_sides(axes, side)
        if balls < 2:
            raise UserError("data.balls does not fit", given=balls, allowed="from 2: few are a third of them")
        self.balls, self.noise, self.data_seed = (-(-balls // 3), balls), noise, data_seed
        self.counts = {"train": train, "val": val, "test": test}

    def make_plan(self) -> Plan:
        names = tuple(f"{what} balls" for what in ("few", "many"))
        return Plan(len(self.sizes), self.size_of(len(self.sizes), self.sizes), names, (0, 1))

    def load(self, plan: Plan) -> dict[str, list[Labelled]]:
        parts = enumerate(self.counts.items())
        return {
            split: [self._case(plan, f"{split} {number}", (part, number)) for number in range(count)]
            for part, (split, count) in parts
        }

    def _case(self, plan: Plan, name: str, key: tuple[int, int]) -> Labelled:
        label = key[1] % 2
        image, _ = balls_in_noise(self.sizes, self.balls[label], 1, self.noise, (self.data_seed, 1, *key))
        return Labelled(name, resampled(plan.normalised(image[None]), plan.patch_size), label)


def checked_sides(axes: int, side: int | Sequence[int]) -> tuple[int, ...]:
    """The sizes of generated volumes; raises UserError where they have no room for balls."""
    if axes not in (2, 3):
        raise UserError("data.axes does not fit", given=axes, allowed="2 (images) or 3 (volumes)")
    sizes = (side,) * axes if isinstance(side, int) else tuple(side)
    if len(sizes) != axes or min(sizes) < 12:
        raise UserError(
            "data.side does not fit", given=side, allowed=f"from 12, one number or {axes} (data.axes={axes})"
        )
    return sizes


def balls_in_noise(
    sizes: Sequence[int], balls: int, materials: int, noise: float, key: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """An image and the material of each voxel, (*sizes) each: a function of the arguments alone."""
    from monai.data.synthetic import create_test_image_2d, create_test_image_3d

    rng = np.random.RandomState(hashed(*key).item() % 2**32)
    make, shortest = (create_test_image_3d if len(sizes) == 3 else create_test_image_2d), min(sizes)
    largest = max(3, min(shortest // 5, (shortest - 3) // 2))
    radii = {"rad_max": largest, "rad_min": max(2, largest // 2)}
    image, labels = make(*sizes, num_objs=balls, noise_max=0.3, num_seg_classes=materials, random_state=rng, **radii)
    return image + rng.normal(0, noise, image.shape), labels
