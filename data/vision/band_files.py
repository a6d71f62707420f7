"""Images of several bands in files: arrays, pictures, or a folder of one picture a band."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...core.errors import UserError
from ..folders import hidden
from .photos import is_image

WHITE = {"uint8": 255.0, "float32": 1.0, "float64": 1.0, "float16": 1.0}
# Modes of Pillow whose numbers are those of the file.
MODES = ("L", "RGB", "RGBA", "RGBX", "CMYK", "I;16", "I;16L", "I;16B", "I;16N", "F")


class BandFiles:
    """Images of several bands from files, as a data set's are scaled.

    Args:
        white: the value that became 1.
    """

    def __init__(self, white: float):
        self.white = white

    def named(self, folder: Path) -> dict[str, Path]:
        """What stands in a folder and may be an image, by its name without the ending."""
        return {each.stem: each for each in sorted(folder.iterdir()) if is_bands(each)}

    def read(self, path: Path) -> tuple[np.ndarray, float, np.dtype]:
        """An image (bands, height, width) float32, where white is 1, and the white and the type of its numbers in the file.

        Raises:
            UserError: it is not there, cannot be read, or has values beyond black and white.
        """
        if not path.exists():
            raise UserError("there is no such file", given=str(path))
        image = read_bands(path)
        # Data of 8 bits or of floating point say what such numbers are in any file; another scale is their own.
        white = WHITE.get(image.dtype.name) if self.white in WHITE.values() else self.white
        low, high = float(image.min()), float(image.max())
        if white is None or not (low >= 0 and high <= white):
            raise UserError(
                f"{path} has values beyond black and white", given=f"{image.dtype}, {low:g} to {high:g}",
                allowed=f"0 to {white or self.white:g}",
                do="save it as floating point numbers from 0 to 1" if white is None else None,
            )  # fmt: skip
        return np.array(image, np.float32) / np.float32(white), white, image.dtype


def is_bands(path: Path) -> bool:
    """Whether a file's or folder's name may be that of an image of bands."""
    return not hidden(path.name) and (path.is_dir() or path.suffix == ".npy" or is_image(path))


def read_bands(path: Path) -> np.ndarray:
    """The values of an image, (bands, height, width), as they are in the file; see BandsFolder.

    Raises:
        UserError: it cannot be read, or is no image of bands.
    """
    if path.is_dir():
        images = [(each, read_bands(each)) for each in images_in(path)]
        for each, image in images:
            if image.shape != (1, *images[0][1].shape[1:]) or image.dtype != images[0][1].dtype:
                raise UserError(
                    f"{each} is no band of this image", given=f"{image.dtype} {image.shape}",
                    allowed=f"one channel, as large as {images[0][0].name}",
                )  # fmt: skip
        return np.concatenate([image for _, image in images])
    if path.suffix == ".npy":
        try:
            values = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"Broken array: {path}", given=f"{type(error).__name__}: {error}") from error
        if values.ndim != 3 or values.dtype.kind not in "uf" or 0 in values.shape:
            raise UserError(
                f"{path} is no image of bands", given=f"{values.dtype} {values.shape}",
                allowed="unsigned or floating point numbers (bands, height, width) or (height, width, bands)",
            )  # fmt: skip
        return values if values.shape[0] <= values.shape[2] else values.transpose(2, 0, 1)
    return _picture(path)


def _picture(path: Path) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
            mode, values = image.mode, np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"Broken image: {path}", given=f"{type(error).__name__}: {error}") from error
    if mode not in MODES:
        raise UserError(
            f"{path} is no image of bands", given=f"an image of mode {mode}", allowed=MODES, do="save it as .npy"
        )
    return values[None] if values.ndim == 2 else values.transpose(2, 0, 1)


def images_in(folder: Path) -> list[Path]:
    """What stands in a folder and may be an image, by name."""
    found = [path for path in sorted(folder.iterdir()) if is_bands(path)]
    if not found:
        raise UserError(f"{folder} holds no images", allowed=".npy arrays, pictures, or a folder of pictures for each")
    return found
