"""From an image file to 8-bit colours: what cannot be read right is refused."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Protocol

import numpy as np

from ...core.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

BITS_TAG, PHOTOMETRIC_TAG, WHITE_IS_ZERO = 258, 262, 0
DEEP = ("I;16", "I;16L", "I;16B", "I;16N")


class ImageFile(Protocol):
    """Where an image's bytes are: a Path, or a part of a larger file; as text it is what a message names."""

    def open(self, mode: str) -> IO[bytes]:
        """The bytes, to be read."""


def open_image(path: ImageFile) -> Image:
    """Decode an image file into a PIL image with three channels of 8 bits.

    It is turned as its EXIF data say; of an animation, the first picture is taken; what is transparent lies on white. Of 16
    bits the upper 8 count, as Pillow has it in colour; floating point numbers are brightness from 0 to 1.

    Raises:
        UserError: the file is missing, broken, cut off, too large, no image, or of numbers whose range nothing tells.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        # from a stream: of an uncompressed TIFF that lies on its side, Pillow maps a named file with the sides swapped
        with path.open("rb") as stream, Image.open(stream) as image:
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            if image.mode in (*DEEP, "I", "F"):
                image = Image.fromarray(_eight_bits(path, image))
            if image.has_transparency_data:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            return image.convert("RGB")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(
            f"Too large an image: {path}", given=str(error).split(",")[0], do="make it smaller, or delete this file"
        ) from error
    except UserError:
        raise
    except UnidentifiedImageError as error:
        raise _broken(path, "no image of a kind that Pillow knows") from error
    except (OSError, SyntaxError, ValueError, LookupError, EOFError, TypeError, ArithmeticError, Warning) as error:
        raise _broken(path, f"{type(error).__name__}: {error}".replace(f": '{path}'", "")) from error


def _broken(path: ImageFile, why: str) -> UserError:
    return UserError(
        f"Broken image: {path}", given=why, do="replace or delete this file; data.verify() names every broken one"
    )


def _eight_bits(path: ImageFile, image: Image) -> np.ndarray:
    """Grey values of more than 8 bits as uint8 (height, width)."""
    values, tags = np.asarray(image), getattr(image, "tag_v2", {})
    if image.mode == "F":
        low, high = float(values.min(initial=0)), float(values.max(initial=0))
        if not (low >= 0 and high <= 1):
            raise UserError(
                f"Image of floating point numbers beyond 0 to 1: {path}", given=f"{low:g} to {high:g}",
                allowed="0 (black) to 1 (white)", do="save it with 8 or 16 bits",
            )  # fmt: skip
        return np.rint(255 * values).astype(np.uint8)
    if image.mode == "I" and image.format not in ("PNG", "PPM"):
        raise UserError(
            f"Image of whole numbers of which nothing tells the range: {path}",
            given=f"{values.min(initial=0)} to {values.max(initial=0)} in {image.format}", allowed="8 or 16 bits",
            do="save it with 8 or 16 bits",
        )  # fmt: skip
    bits = tags.get(BITS_TAG, (16,))[0]
    eight = (values.astype(np.uint32) >> (bits - 8)).astype(np.uint8)
    return 255 - eight if tags.get(PHOTOMETRIC_TAG) == WHITE_IS_ZERO else eight
