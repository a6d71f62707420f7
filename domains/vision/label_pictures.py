"""Pictures of classes over images: each image, its truth and what was answered beside one another, in a palette's colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from ...core.pictures import FAINT, INK
from .image_grid import draw_grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STRENGTH = 0.6  # of the colour over the image
SIDE = 160  # pixels of a drawn image
IGNORED = 255


def colours(count: int) -> Tensor:
    """A colour for each class, float (count, 3): the bits of a number dealt to red, green and blue (Pascal VOC's palette)."""
    numbers, found = torch.arange(count), torch.zeros(count, 3, dtype=torch.long)
    for bit in range(3):
        for channel in range(3):
            found[:, channel] |= ((numbers >> (3 * bit + channel)) & 1) << (7 - bit)
    return found / 255


def overlaid(image: Tensor, classes: Tensor) -> Tensor:
    """An image (1 or 3 channels, height, width) within 0 and 1 under the colours of its classes (height, width)."""
    picture = image.mean(0, keepdim=True).expand(3, -1, -1).clone() if image.shape[0] != 3 else image.clone()
    known = classes != IGNORED
    over = colours(256)[classes.clamp(0, 255).long()].movedim(-1, 0)
    return torch.where(known, (1 - STRENGTH) * picture + STRENGTH * over, 0.3 * picture)


def squared(picture: Tensor) -> Tensor:
    """A picture (3, height, width) as large as fits a square, white around it."""
    height, width = picture.shape[-2:]
    scale = SIDE / max(height, width)
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    mode = {"mode": "bilinear", "antialias": True} if scale < 1 else {"mode": "nearest"}
    small = F.interpolate(picture[None], size, **mode)[0]
    return F.pad(small, (0, SIDE - size[1], 0, SIDE - size[0]), value=1.0)


def draw_labels(
    images: Sequence[Tensor],
    labels: Sequence[Sequence[Tensor]],
    titles: Sequence[str],
    heading: str,
    names: Sequence[str],
) -> Figure:
    """A row an image: plain, then under each of its label images.

    Args:
        images: (1 or 3 channels, height, width) each, within 0 and 1.
        labels: for each image one or two (height, width), truth and answer.
        titles: one an image. names: of the classes, for the legend.
    """
    pictures, above = [], []
    for image, each, title in zip(images, labels, titles, strict=True):
        plain = image if image.shape[0] == 3 else image.mean(0, keepdim=True).expand(3, -1, -1)
        pictures += [squared(plain), *(squared(overlaid(image, one)) for one in each)]
        above += [title, *([""] * len(each))]
    columns = 1 + len(labels[0])
    wide = columns * max(1, 6 // columns)
    figure = draw_grid(torch.stack(pictures), above, heading, columns=min(wide, len(pictures)))
    _legend(figure, names)
    return figure


def draw_bars(values: Sequence[float], names: Sequence[str]) -> Figure:
    """IoU of each class as a bar."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 0.32 * len(names) + 1), dpi=110)
    place = figure.subplots()
    place.barh(range(len(names)), values, color=colours(len(names)).numpy(), edgecolor="0.5", linewidth=0.5)
    for number, value in enumerate(values):
        place.text(min(value, 0.9) + 0.01, number, f"{value:.3f}", va="center", fontsize=8, color=INK)
    place.set_yticks(range(len(names)), names, fontsize=8)
    place.set_xlim(0, 1)
    place.set_xlabel("IoU over the test images", fontsize=8, color=FAINT)
    place.invert_yaxis()
    figure.tight_layout()
    return figure


def _legend(figure: Figure, names: Sequence[str], most: int = 12) -> None:
    from matplotlib.patches import Patch

    known = [
        Patch(facecolor=tuple(colour.tolist()), edgecolor="0.5", label=name)
        for colour, name in zip(colours(len(names)), names[:most], strict=False)
    ]
    figure.legend(
        handles=known,
        loc="upper right",
        ncols=min(6, len(known)),
        fontsize=6,
        frameon=False,
        borderpad=0,
        handlelength=1,
    )
