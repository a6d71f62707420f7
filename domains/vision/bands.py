"""A coarse image of several bands and a fine panchromatic one: sizes that fit, and the bands enlarged by interpolation."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from ...core.errors import UserError


def enlarged(ms: Tensor, pan: Tensor, mode: str = "bicubic") -> Tensor:
    """The bands at the size of the panchromatic image, by interpolation.

    Args:
        ms: (batch, bands, height, width). pan: (batch, 1, ratio * height, ratio * width).
        mode: "bicubic" or "nearest".
    """
    corners = {} if mode == "nearest" else {"align_corners": False}
    return F.interpolate(ms, pan.shape[-2:], mode=mode, **corners)


def check_pair(ms: Tensor, pan: Tensor, bands: int, ratio: int) -> None:
    """Raise a UserError where a pair is not what a model of so many bands and this ratio takes; shapes as of `enlarged`."""
    expected = (len(ms), 1, *(ratio * side for side in ms.shape[2:]))
    if ms.dim() != 4 or ms.shape[1] != bands or tuple(pan.shape) != expected:
        raise UserError(
            "the two images do not fit the model or one another", given=f"{tuple(ms.shape)} and {tuple(pan.shape)}",
            allowed=f"(batch, {bands}, height, width) and (batch, 1, {ratio} * height, {ratio} * width)",
        )  # fmt: skip
