"""Images of several bands in the user's own folder: arrays, pictures, or a folder of one picture a band for each."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ...core.errors import UserError
from ...core.ranges import Fraction, Positive, Seed, Side, Size, Weight, checked
from ..loading import Loading
from ..randomness import divided
from .band_files import WHITE, images_in, read_bands
from .bands import BandData, Scene
from .sources import BANDS_FOLDER

log = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")


class BandsFolder(BandData):
    """Images of several bands: root/* with an automatic division, or root/{train,val,test}/*.

    An image is a .npy array, (bands, height, width) or (height, width, bands), the shorter of these two axes; a picture of 3 or 4
    channels of 8 bits (PNG, TIFF), where the fourth is a band too; or a folder of pictures of one channel, of 8 or 16 bits or
    floating point, one a band, in the order of their names.

    Args:
        root: the folder.
        loading, image_size, ratio, gain, weights, augment, crops: see `BandData`.
        white: the value that becomes 1, the largest there may be: 2047 for 11 bits; None: 255 for 8 bits, 1 for floating point.
        bands: names, in their order; None: numbers. shown: positions of the bands that are drawn red, green and blue.
        val_fraction, test_fraction: share of the images, where there are no folders for them.
        split_seed: seed of these parts.
        name: the data set's name in results.
    """

    source = BANDS_FOLDER

    @checked(group="data")
    def __init__(
        self,
        root: str | None = None,
        loading: Loading = Loading(batch_size=8),
        image_size: Side | Sequence[Side] = 64,
        ratio: Size = 4,
        gain: Fraction = 0.3,
        weights: Sequence[Weight] | None = None,
        augment: bool = True,
        crops: Size = 16,
        white: Positive | None = None,
        bands: Sequence[str] | None = None,
        shown: Sequence[int] = (2, 1, 0),
        val_fraction: Fraction = 0.1,
        test_fraction: Fraction = 0.2,
        split_seed: Seed = 0,
        name: str = "bands_folder",
    ):
        super().__init__(name, loading, image_size, ratio, gain, weights, augment, crops)
        self.root, self.named, self.given_white, self.shown = root, bands, white, tuple(shown)
        self.fractions, self.split_seed = (val_fraction, test_fraction), split_seed

    def load(self) -> dict[str, list[Scene]]:
        """List the images and look through all of them; see `BandData.load`."""
        if not self.root:
            raise UserError(f"{self.name} needs a folder of images of several bands", do="data.root=FOLDER")
        root = Path(self.root).expanduser()
        if not root.is_dir():
            raise UserError("There is no such folder", given=f"data.root={root}", do="data.root=FOLDER")
        if (root / "train").is_dir():
            found = {split: images_in(root / split) for split in SPLITS if (root / split).is_dir()}
        else:
            found = dict(zip(SPLITS, self._divided(images_in(root), *self.fractions), strict=True))
        if "val" not in found:
            found |= dict(zip(("train", "val"), self._divided(found["train"], self.fractions[0]), strict=True))
        if "test" not in found:
            log.warning("%s has no test folder: testing on the validation images", root)
            found["test"], self.tested = found["val"], "the validation images: there is no folder for test"
        self._look_through([path for paths in found.values() for path in paths])
        return {
            split: [Scene(path.name, partial(read_bands, path)) for path in paths] for split, paths in found.items()
        }

    def _divided(self, paths: Sequence[Path], *fractions: float) -> list[list[Path]]:
        return [[paths[each] for each in part] for part in divided(len(paths), self.split_seed, *fractions)]

    def _look_through(self, paths: Sequence[Path]) -> None:
        """Check every image, and set bands and white by the first."""
        first = read_bands(paths[0])
        self.bands = tuple(self.named or (f"band {number + 1}" for number in range(len(first))))
        self.white = self.given_white or WHITE.get(first.dtype.name, 0.0)
        if not self.white:
            raise UserError(
                f"which value is white? {paths[0]} does not say", given=f"{first.dtype.name}, up to {first.max()}",
                do=f"data.white={2 ** int(first.max()).bit_length() - 1}",
            )  # fmt: skip
        if len(self.bands) != len(first) or len(first) < 2:
            raise UserError(
                f"{paths[0]} has not the bands that it should have", given=f"{len(first)} bands",
                allowed=f"{len(self.named)}: {', '.join(self.named)}" if self.named else "two or more",
            )  # fmt: skip
        if len(self.shown) != 3 or not all(0 <= each < len(first) for each in self.shown):
            raise UserError("data.shown does not fit", given=self.shown, allowed=f"three of 0 to {len(first) - 1}")
        for path in paths:
            self._check(path, read_bands(path))

    def _check(self, path: Path, image: np.ndarray) -> None:
        if len(image) != len(self.bands):
            raise UserError(
                f"{path} has other bands than the first image",
                given=f"{len(image)} bands",
                allowed=f"{len(self.bands)} bands",
            )
        if any(side < least for side, least in zip(image.shape[1:], self.size, strict=True)):
            raise UserError(
                f"{path} is smaller than a crop", given=f"{image.shape[1]}x{image.shape[2]} pixels",
                allowed=f"at least {self.size[0]}x{self.size[1]}",
                do=f"data.image_size={max(1, min(image.shape[1:]) // self.ratio) * self.ratio}",
            )  # fmt: skip
        low, high = float(image.min()), float(image.max())
        if not (low >= 0 and high <= self.white):
            raise UserError(
                f"{path} has values beyond black and white", given=f"{low:g} to {high:g}", allowed=f"0 to {self.white:g}",
                do=f"data.white={high:g}" if low >= 0 and np.isfinite(high) else None,
            )  # fmt: skip
