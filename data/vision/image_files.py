"""What image data of files share, whatever holds them: mean and deviation, the middle that is tested, decoding every one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...core.errors import UserError
from ...core.ranges import Mass, Seed, Side, Size
from ..loading import Loading
from ..module import Description
from .augmentation import Augmentation
from .decoding import ImageFile, open_image
from .images import ImageData

MOST_NAMED = 20


class ImageFiles(ImageData):
    """Base of the data modules whose images are decoded when they are asked for.

    Args:
        name: the data set's name in results.
        root: the folder that holds them.
        loading, augmentation, image_size, channels, split_seed: see `ImageData`.
        mean, std: of each channel, for pixels in [0, 1]; None: ImageNet's.
        crop: the share of an image's smaller side that is left in the middle where nothing is varied (timm's crop_pct); None:
            timm's, 0.875.
    """

    own_size, own_channels = (224, 224), 3
    in_memory = False
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

    def __init__(
        self,
        name: str,
        root: str | None,
        loading: Loading,
        augmentation: Augmentation,
        image_size: Side | Sequence[Side],
        channels: Size,
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
        crop: Mass | None,
        split_seed: Seed,
    ):
        super().__init__(name, loading, augmentation, image_size, channels, split_seed)
        if not root:
            raise UserError(f"{name} needs a folder", do="data.root=FOLDER")
        self.root, self.crop = Path(root).expanduser(), crop
        if (mean is None) != (std is None):
            raise UserError("data.mean and data.std go together", given=f"mean={mean}, std={std}")
        if mean is not None:
            self.mean, self.std = tuple(mean), tuple(std)
            if len(self.mean) not in (1, 3) or len(self.std) != len(self.mean) or min(self.std) <= 0:
                raise UserError("data.mean or data.std does not fit", given=f"mean={mean}, std={std}")

    def check_root(self) -> None:
        """Raises UserError where the folder is not there."""
        if not self.root.is_dir():
            raise UserError("There is no such folder", given=f"data.root={self.root}", do="data.root=FOLDER")

    def describe(self) -> Description:
        """See `ImageData.describe`."""
        return replace(super().describe(), source=str(self.root))

    @classmethod
    def reading(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """See `ImageData.reading`: what is tested of an image too."""
        return {**super().reading(settings), "crop": settings.get("crop")}

    def verify(self) -> None:
        """Decode every image; raises UserError that names each broken one (the first twenty)."""
        splits = self.load()
        files = sorted({file for split in splits.values() for file in split.images})
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            broken = [error for error in pool.map(_broken, files) if error is not None]
        if broken:
            named = [f"{error.problem.removeprefix('Broken image: ')} ({error.given})" for error in broken[:MOST_NAMED]]
            more = [f"and {len(broken) - MOST_NAMED} more"] if len(broken) > MOST_NAMED else []
            raise UserError(
                f"{len(broken)} of {len(files)} images in {self.root} are broken",
                given="\n           ".join([*named, *more]),
                do="replace or delete these files",
            )


def _broken(file: ImageFile) -> UserError | None:
    try:
        open_image(file)
    except UserError as error:
        return error
    return None
