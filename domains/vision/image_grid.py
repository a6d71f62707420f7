"""Pictures of pictures: a grid of images with titles, drawn without pyplot so that no window system is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...core.lettering import drawable
from ...core.pictures import INK

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def denormalise(images: Tensor, mean: Sequence[float] | None, std: Sequence[float] | None) -> Tensor:
    """Undoes the loader's normalisation.

    Args:
        images: (batch, channels, height, width), normalised.
        mean, std: one number a channel (or one for all); None leaves the images as they are.

    Returns:
        (batch, channels, height, width) float32 on the CPU, within 0 and 1.
    """
    images = images.detach().float().cpu()
    if std is not None:
        images = images * torch.tensor(std).float().reshape(1, -1, 1, 1)
    if mean is not None:
        images = images + torch.tensor(mean).float().reshape(1, -1, 1, 1)
    return images.clamp(0, 1)


def draw_grid(
    images: Tensor,
    titles: Sequence[str],
    heading: str,
    colours: Sequence[str] | None = None,
    columns: int | None = None,
) -> Figure:
    """Draws images in a grid, each with a title above it.

    Args:
        images: (count, channels, height, width) within 0 and 1; one channel is drawn in grey, three in colour, of any
            other number the mean over channels in grey.
        titles: one title an image; may have several lines.
        heading: one line above all.
        colours: one colour a title; None for black.
        columns: images in a row; None for about as many as rows, such that the last row is as full as may be.
    """
    from matplotlib.figure import Figure

    count = len(images)
    columns = columns or even_columns(count)
    rows = -(-count // columns)
    lines = max((title.count("\n") + 1 for title in titles), default=1)
    shape = min(1.6, max(0.4, images.shape[-2] / images.shape[-1]))
    cell_width, cell_height = 1.45, 1.35 * shape + 0.17 * lines
    width, height = max(4.5, columns * cell_width + 0.3), rows * cell_height + 0.55
    figure = Figure(figsize=(width, height), dpi=110, facecolor="white")
    heading, fonts = drawable(heading)
    place = {"x": 0.02, "y": 1 - 0.12 / height, "ha": "left", "va": "top"}
    figure.suptitle(heading, **place, fontsize=10, color=INK, weight="bold", family=fonts, parse_math=False)
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis in axes:
        axis.set_axis_off()
    for index, (axis, image, title) in enumerate(zip(axes, images, titles, strict=False)):
        channels = image.shape[0]
        picture = image.permute(1, 2, 0) if channels == 3 else image.mean(0)
        axis.imshow(picture.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        title, fonts = drawable(title)
        colour = colours[index] if colours else INK
        axis.set_title(title, fontsize=7.5, pad=3, color=colour, linespacing=1.15, family=fonts, parse_math=False)
    top = 1 - (0.42 + 0.17 * lines) / height
    figure.subplots_adjust(
        left=0.01, right=0.99, bottom=0.08 / height, top=top, wspace=0.08, hspace=0.14 * lines / shape
    )
    return figure


def even_columns(count: int, most: int = 8) -> int:
    """Images in a row for a grid a little wider than high, of the widths near that the one with the fullest last row."""
    ideal = max(1, min(most, round((count * 1.4) ** 0.5)))
    near = range(max(1, ideal - 1), min(most, ideal + 2, max(count, 1)) + 1)
    return min(near, key=lambda columns: (-count % columns, abs(columns - ideal), -columns))


def shorten(name: str, limit: int = 16) -> str:
    """A class name cut to at most `limit` characters."""
    return name if len(name) <= limit else name[: limit - 1] + "…"
