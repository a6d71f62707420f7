"""Cutting an image into patches: which sizes fit, and the projection of patches to tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from ....core.errors import UserError
from ....core.ranges import Side, Size, checked

LARGEST_PATCH = 16
ENOUGH_TOKENS = 49  # 7 x 7, the coarsest grid of the usual backbones
FEW_TOKENS = 16
MOST_TOKENS = 4096


def fitting_patch_sizes(image_size: tuple[int, int]) -> list[int]:
    """The patch sizes that divide both sides of the image, in pixels, ascending."""
    return [size for size in range(1, min(image_size) + 1) if image_size[0] % size == image_size[1] % size == 0]


def suitable_patch_size(image_size: tuple[int, int]) -> int:
    """The largest patch size, up to 16 pixels, that divides the image and leaves at least 49 tokens.

    Tiny images get patches of 2 pixels or more as long as 16 tokens are left.

    Raises:
        UserError: an image whose sides share no factor would take too many tokens.
    """
    height, width = image_size
    tokens = {size: (height // size) * (width // size) for size in fitting_patch_sizes(image_size)}
    enough = [size for size in tokens if 2 <= size <= LARGEST_PATCH and tokens[size] >= ENOUGH_TOKENS]
    few = [size for size in tokens if size >= 2 and tokens[size] >= FEW_TOKENS]
    size = max(enough) if enough else min(few, default=1)
    if tokens[size] > MOST_TOKENS:
        raise UserError(
            f"no small patch divides images of {height}x{width} pixels into at most {MOST_TOKENS} tokens",
            given=f"image size {height}x{width}", allowed=list(tokens),
            do=f"choose another image size, such as {_round(height)}x{_round(width)}, or give the patch size",
        )  # fmt: skip
    return size


class PatchEmbed(nn.Module):
    """Projects patches, which may overlap, to tokens.

    Args:
        image_size: (height, width) in pixels.
        patch_size: side of a patch in pixels.
        stride: pixels between patches; None: the patch size.
        in_chans, embed_dim: channels of the image and of a token.
        dynamic: take images of any size, filled up with zeros at the far ends where patches do not cover them exactly.

    Raises:
        UserError: patches that do not cover the image exactly.
    """

    @checked
    def __init__(
        self, image_size: tuple[int, int], patch_size: Side, stride: Side | None, in_chans: Size, embed_dim: Size,
        device=None, dtype=None, dynamic: bool = False,
    ):  # fmt: skip
        super().__init__()
        self.image_size, self.patch_size, self.stride = (
            tuple(image_size),
            patch_size,
            patch_size if stride is None else stride,
        )
        self.dynamic = dynamic
        if not dynamic:
            _check_fit(self.image_size, patch_size, self.stride)
        self.grid_size = self.grid_of(self.image_size)
        self.num_patches = math.prod(self.grid_size)
        self.proj = nn.Conv2d(in_chans, embed_dim, patch_size, self.stride, device=device, dtype=dtype)

    def forward(self, image: Tensor) -> Tensor:
        """(batch, channels, height, width) to (batch, rows * columns, embed_dim), row after row."""
        return self.proj(self.fitted(image)).flatten(2).transpose(1, 2)

    def grid_of(self, image_size: Sequence[int]) -> tuple[int, int]:
        """Rows and columns of the patches that cover images of this size."""
        return tuple(max(-(-(side - self.patch_size) // self.stride), 0) + 1 for side in image_size)

    def fitted(self, image: Tensor) -> Tensor:
        """Images (..., height, width) of the size that the model was made for, or, where it takes any, as patches cover them.

        Raises:
            UserError: images of another size.
        """
        if tuple(image.shape[-2:]) == self.image_size and not self.dynamic:
            return image
        if not self.dynamic:
            height, width = self.image_size
            raise UserError(
                f"the model was made for images of {height}x{width} pixels",
                given="x".join(map(str, image.shape[-2:])), allowed=f"{height}x{width}",
                do="resize the images, or build the model with another img_size, or with dynamic_img_size=True",
            )  # fmt: skip
        rows, columns = (self.patch_size + (number - 1) * self.stride for number in self.grid_of(image.shape[-2:]))
        return F.pad(image, (0, columns - image.shape[-1], 0, rows - image.shape[-2]))


def _check_fit(image_size: tuple[int, int], patch_size: int, stride: int) -> None:
    height, width = image_size
    if min(image_size) >= patch_size and (height - patch_size) % stride == (width - patch_size) % stride == 0:
        return
    how = f"patches of {patch_size} pixels" + (f" every {stride} pixels" if stride != patch_size else "")
    raise UserError(
        f"{how} do not fit an image of {height}x{width} pixels",
        given=f"patch_size={patch_size}, stride={stride}, image size {height}x{width}",
        allowed="patch sizes " + ", ".join(map(str, fitting_patch_sizes(image_size))),
        do=f"choose one of these, or an image size such as {_round(height, patch_size)}x{_round(width, patch_size)}",
    )


def _round(side: int, multiple: int = LARGEST_PATCH) -> int:
    return max(1, round(side / multiple)) * multiple
