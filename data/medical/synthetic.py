"""MONAI's generated volumes: balls of two materials in noise; nothing to download."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...core.errors import UserError
from ...core.ranges import Count, Seed, Share, Size, Weight, checked
from ..loading import Loading
from ..randomness import hashed
from .plan import Plan
from .segmentation import Case, SegmentationData
from .sources import SYNTHETIC_VOLUMES


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
        if axes not in (2, 3):
            raise UserError("data.axes does not fit", given=axes, allowed="2 (images) or 3 (volumes)")
        self.axes, self.balls, self.materials, self.noise = axes, balls, materials, noise
        self.sizes = (side,) * axes if isinstance(side, int) else tuple(side)
        if len(self.sizes) != axes or min(self.sizes) < 12:
            raise UserError(
                "data.side does not fit", given=side, allowed=f"from 12, one number or {axes} (data.axes={axes})"
            )
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
        from monai.data.synthetic import create_test_image_2d, create_test_image_3d

        rng = np.random.RandomState(hashed(self.data_seed, *key).item() % 2**32)
        make, shortest = (create_test_image_3d if self.axes == 3 else create_test_image_2d), min(self.sizes)
        largest = max(3, min(shortest // 5, (shortest - 3) // 2))
        radii = {"rad_max": largest, "rad_min": max(2, largest // 2)}
        image, labels = make(
            *self.sizes, num_objs=self.balls, noise_max=0.3, num_seg_classes=self.materials, random_state=rng, **radii
        )
        image = image + rng.normal(0, self.noise, image.shape)
        return Case(name, plan.normalised(image[None]), labels.astype(np.uint8))
