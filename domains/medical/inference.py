"""Whole images and volumes by a network that was made for patches: windows that slide, and mirror images."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, combinations

import torch
from torch import Tensor, nn


@torch.no_grad()
def segment(
    model: nn.Module, images: Tensor, patch_size: Sequence[int], overlap: float = 0.5, windows: int = 4, mirror: bool = False,
    progress: bool = False,
) -> Tensor:  # fmt: skip
    """Logits of whole images, (batch, classes, *sizes), of images (batch, channels, *sizes).

    Windows of the patch's sizes are weighted by a bell curve (nnU-Net); a volume that is smaller is padded with zeros.

    Args:
        overlap: share of a window that the next one covers too.
        windows: at a time. mirror: average over the mirror images along all axes. progress: show a bar of windows.
    """
    from monai.inferers import sliding_window_inference

    axes = range(2, images.dim())
    flips = list(chain.from_iterable(combinations(axes, count) for count in range(len(axes) + 1))) if mirror else [()]

    def answer(parts: Tensor) -> Tensor:
        total = sum(model(parts.flip(flip)).flip(flip) for flip in flips)
        return total / len(flips)

    # One image at a time: how a window is batched with others' must not matter to it.
    found = [
        sliding_window_inference(
            image[None], tuple(patch_size), windows, answer, overlap=overlap, mode="gaussian", progress=progress
        )
        for image in images
    ]
    return torch.cat(found)
