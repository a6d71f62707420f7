"""Images from anywhere, found, opened and prepared as a model's test images were."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from ...core.errors import UserError, closest
from ..folders import files_below, hidden
from .augmentation import Finish, to_channels
from .decoding import open_image

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm",
    ".jp2", ".tga", ".avif",
)  # fmt: skip


def is_image(path: Path) -> bool:
    """Whether a file's name is that of an image."""
    return path.suffix.lower() in SUFFIXES and not hidden(path.name)


def find_images(where: str) -> list[Path]:
    """The image files that a path or a pattern means: a file, whatever its name; all images below a folder; what matches.

    Raises:
        UserError: there is no such file or folder, or no image in it.
    """
    path = Path(where).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        found = [each for each in files_below(path) if is_image(each)]
        if not found:
            raise UserError(
                "there are no images in this folder", given=f"input={where}", allowed=f"files that end in {', '.join(SUFFIXES)}"
            )  # fmt: skip
        return found
    found = sorted({Path(each) for each in glob.glob(str(path), recursive=True)})
    found = [each for each in found if each.is_file() and is_image(each)]
    if not found:
        pattern = glob.has_magic(str(path))
        beside = [str(each) for each in path.parent.iterdir()] if path.parent.is_dir() and not pattern else []
        near = closest(str(path), beside)
        raise UserError(
            "no image matches this pattern" if pattern else "there is no such file or folder", given=f"input={where}",
            allowed="an image, a folder of images, or a pattern in quotes like 'photos/**/*.jpg'",
            do=f"input={near}" if near else None,
        )  # fmt: skip
    return found


class Photos:
    """Opens and prepares images.

    Args:
        size: (height, width) the model sees.
        mean, std: of each channel that it sees, for pixels in [0, 1].
        crop: of images in files: the share of the smaller side that is left in the middle (timm's crop_pct).
        own: (height, width) and channels of a data set whose images are in memory: others are cut to its proportions, in the
            middle, and given its channels, then resized as its own are. None: files, which timm's transform prepares.
    """

    def __init__(
        self,
        size: tuple[int, int],
        mean: Sequence[float],
        std: Sequence[float],
        crop: float | None = None,
        own: tuple[tuple[int, int], int] | None = None,
    ):
        self.size, self.own, self.finish = tuple(size), own, Finish(mean, std)
        self.crop = crop
        self._transform = None

    def find(self, where: str) -> list[Path]:
        """See `find_images`."""
        return find_images(where)

    def open(self, path: str | Path) -> Image:
        """See `open_image`."""
        return open_image(Path(path))

    def prepare(self, images: Sequence[Image]) -> torch.Tensor:
        """PIL images of three channels to what the model sees: float32 (batch, channels, height, width)."""
        prepared = torch.cat([self._one(image) for image in images])
        return self.finish(prepared, 0, np.arange(len(images)))

    def _one(self, image: Image) -> torch.Tensor:
        """uint8 (1, channels, height, width)."""
        if self.own is None:
            return torch.from_numpy(np.ascontiguousarray(self._from_file(image.convert("RGB"))))[None]
        (height, width), channels = self.own
        image = image.convert("RGB")
        share = min(image.width / width, image.height / height)
        across, down = max(1, round(share * width)), max(1, round(share * height))
        left, top = (image.width - across) // 2, (image.height - down) // 2
        pixels = np.array(image.crop((left, top, left + across, top + down)))
        values = to_channels(torch.from_numpy(pixels).permute(2, 0, 1)[None], channels)
        if values.shape[-2:] != self.size:
            values = functional.interpolate(values.contiguous(), self.size, mode="bilinear", antialias=True)
        return values

    def _from_file(self, image: Image) -> np.ndarray:
        if self._transform is None:
            from timm.data import create_transform

            # use_prefetcher leaves conversion and normalisation to Finish, as for a data set's own files
            usual = {"input_size": (3, *self.size), "use_prefetcher": True, "interpolation": "bicubic"}
            self._transform = create_transform(**usual, crop_pct=self.crop)
        return self._transform(image)
