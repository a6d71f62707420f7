"""Videos as strips of some of their frames, and what belongs to them as strips of the same moments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...core.lettering import drawable
from ...core.pictures import FAINT, INK
from ...core.scans import Grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 4  # frames of a strip


def moments(count: int) -> list[int]:
    """Which of `count` frames are shown: up to four, the first and the last among them."""
    return torch.linspace(0, count - 1, min(SHOWN, count)).round().long().tolist()


def strip(videos: Tensor) -> Tensor:
    """(batch, channels, frames, height, width) to frames beside one another, (batch, channels, height, shown * width)."""
    return torch.cat([videos[:, :, moment] for moment in moments(videos.shape[2])], -1)


def strip_of_tokens(weights: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
    """Weights (batch, tokens) of a grid of (moments, rows, columns) as those of one of (rows, shown * columns)."""
    kept = [token for token in range(grid.length) if token not in grid.extra]
    each = weights[:, kept].unflatten(1, grid.sizes)
    shown = torch.cat([each[:, moment] for moment in moments(grid.sizes[0])], -1)
    return shown.flatten(1), Grid(tuple(shown.shape[1:]))


def draw_films(films: Sequence[Sequence[Tensor]], names: Sequence[str], titles: Sequence[str], heading: str) -> Figure:
    """Draws films beneath one another, each of several rows of frames.

    Args:
        films: for each its rows, (channels, frames, height, width) within 0 and 1, all of one size.
        names: of the rows. titles: one a film.
        heading: one line above all.
    """
    from matplotlib.figure import Figure

    rows, (_, frames, height, width) = len(names), films[0][0].shape
    wide, high = 7.0, min(4.0, 7.0 * rows * height / (frames * width))
    across, down = wide + 0.9, len(films) * (high + 0.3) + 0.4
    figure = Figure(figsize=(across, down), dpi=110, facecolor="white")
    heading, fonts = drawable(heading)
    place = {"x": 0.02, "y": 1 - 0.12 / down, "ha": "left", "va": "top"}
    figure.suptitle(heading, **place, fontsize=10, color=INK, weight="bold", family=fonts, parse_math=False)
    figure.subplots_adjust(0.8 / across, 0.08 / down, 1 - 0.1 / across, 1 - 0.6 / down, hspace=0.3 / high)
    for axis, film, title in zip(figure.subplots(len(films), 1, squeeze=False)[:, 0], films, titles, strict=True):
        picture = torch.cat([torch.cat(row.unbind(1), -1) for row in film], -2)
        picture = picture.movedim(0, -1) if picture.shape[0] == 3 else picture.mean(0)
        axis.imshow(picture.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axis.set_yticks([(row + 0.5) * height - 0.5 for row in range(rows)], names, fontsize=7, color=FAINT)
        axis.set_xticks([])
        axis.tick_params(length=0)
        axis.set_frame_on(False)
        title, fonts = drawable(title)
        axis.set_title(title, fontsize=7.5, pad=3, color=INK, family=fonts, loc="left", parse_math=False)
    return figure
