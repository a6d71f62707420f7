"""Masks in files, and photos of any size whose classes are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ...core.errors import UserError
from .decoding import open_image
from .photos import find_images

if TYPE_CHECKING:
    from PIL.Image import Image


class MaskedPhotos:
    """Opens images and prepares them as they are, of any size.

    Args:
        finish: makes the model's numbers of uint8 images of one size.
    """

    def __init__(self, finish: Callable[[Sequence[torch.Tensor]], torch.Tensor]):
        self.finish = finish

    def find(self, where: str) -> list[Path]:
        """See `find_images`."""
        return find_images(where)

    def open(self, path: str | Path) -> Image:
        """See `open_image`."""
        return open_image(Path(path))

    def prepare(self, image: Image) -> torch.Tensor:
        """A PIL image of three channels to float32 (1, channels, height, width)."""
        return self.finish([torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)])

    def write(self, path: Path, classes: np.ndarray, palette: np.ndarray) -> None:
        """Writes classes, uint8 (height, width), as a PNG with a palette, uint8 (256, 3)."""
        from PIL import Image

        image = Image.frombytes("P", classes.shape[::-1], np.ascontiguousarray(classes).tobytes())
        image.putpalette(palette.flatten().tolist())
        part = path.with_name(f".{path.name}.tmp")
        image.save(part, format="PNG")
        part.replace(path)


def read_mask(path: Path) -> np.ndarray:
    """The number of each pixel in a mask, uint8 (height, width): a palette's index, a grey value, or 0 and 1 of one bit.

    Raises:
        UserError: it cannot be read, has colours but no palette, or numbers beyond 255.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            image.load()
            values, mode = np.array(image), image.mode
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise UserError(f"Broken mask: {path}", given=f"{type(error).__name__}: {error}") from error
    if mode in ("RGB", "RGBA", "LA") and all(
        (values[..., 0] == values[..., each]).all() for each in range(1, min(3, values.shape[2]))
    ):
        values, mode = values[..., 0], "L"  # grey, saved in colour
    if values.ndim != 2:
        raise UserError(
            f"{path} is no mask", given=f"an image of mode {mode}", allowed="a palette, or a grey value for each class",
            do="save it with a palette (mode P) or in grey",
        )  # fmt: skip
    if values.min() < 0 or values.max() > 255:
        raise UserError(f"{path} is no mask", given=f"numbers up to {values.max()}", allowed="0 to 255")
    return values.astype(np.uint8)
