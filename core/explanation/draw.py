"""Pictures of what an answer rests on: matrices over the tokens, marked words, a heat map over an image."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import UserError
from ..lettering import columns, cut, drawable
from ..scans.grid import Grid, as_grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 80  # characters in a line of text
COLOURS = "inferno"
STRENGTH = 0.6  # of a heat map over an image
MOST_LABELS = 48


def draw_matrix(matrix: Tensor, tokens: Sequence[str] | None = None, file: str | os.PathLike | None = None) -> Figure:
    """A matrix (length, length) as a picture: row i is what token i takes from each token j; signed ones in two colours.

    Args:
        matrix: of one sample.
        tokens: labels of rows and columns, drawn where they are few enough to be read.
        file: also save the figure there; the suffix says the format.
    """
    from matplotlib.figure import Figure

    values = _array(matrix, 2)
    figure = Figure(figsize=(5.2, 4.6), layout="constrained", dpi=120)
    axes = figure.add_subplot()
    if (values < 0).any():
        most = np.abs(values).max()
        picture = axes.imshow(values, cmap="RdBu_r", vmin=-most, vmax=most)
    else:
        picture = axes.imshow(values, cmap=COLOURS, vmin=0)
    axes.set_xlabel("from token")
    axes.set_ylabel("to token")
    if tokens is not None:
        _check_count(tokens, len(values))
        if len(tokens) <= MOST_LABELS:
            names, fonts = _drawable([_visible(token) for token in tokens], "DejaVu Sans")
            axes.set_xticks(range(len(names)), names, rotation=90, fontsize=6, parse_math=False, family=fonts)
            axes.set_yticks(range(len(names)), names, fontsize=6, parse_math=False, family=fonts)
    if tokens is None or len(tokens) > MOST_LABELS:
        for axis in (axes.xaxis, axes.yaxis):
            axis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    figure.colorbar(picture, ax=axes)
    return _saved(figure, file)


def draw_text(
    weights: Tensor,
    tokens: Sequence[str],
    answer: int | None = None,
    file: str | os.PathLike | None = None,
    heading: str | None = None,
) -> Figure:
    """The text, each token on a background as strong as its weight.

    Args:
        weights: (length,), one a token: a row of a map.
        tokens: the text of each.
        answer: token whose answer is explained, framed.
        file: also save the figure there; the suffix says the format.
        heading: a line above the text.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    values, colours = _scaled(_array(weights, 1)), colormaps["Reds"]
    _check_count(tokens, len(values))
    shown, fonts = _drawable([_visible(token) for token in tokens], "DejaVu Sans Mono")
    places, lines = _places(shown)
    above = 0 if heading is None else 0.3
    height = max(0.6, 0.24 * lines + 0.2) + above
    figure = Figure(figsize=(9, height), dpi=120)
    axes = figure.add_axes((0.02, 0.02, 0.96, 0.96 - above / height))
    if heading is not None:
        heading, family = drawable(heading)
        figure.text(
            0.02, 1 - 0.08 / height, heading, va="top", fontsize=10, weight="bold", parse_math=False, family=family
        )
    axes.set_axis_off()
    axes.set_xlim(0, COLUMNS)
    axes.set_ylim(lines, 0)
    for number, (row, column, text) in enumerate(places):
        colour = colours(0.75 * values[number])
        edge = "black" if number == answer else "none"
        axes.add_patch(Rectangle((column, row + 0.06), columns(text), 0.88, facecolor=colour, edgecolor=edge))
        axes.text(
            column + columns(text) / 2, row + 0.5, text, family=fonts, fontsize=9, ha="center", va="center",
            parse_math=False,
        )  # fmt: skip
    return _saved(figure, file)


def draw_image(
    weights: Tensor, grid: Grid | Sequence[int], image: Tensor | None = None, file: str | os.PathLike | None = None
) -> Figure:
    """A heat map over the tokens of an image, laid over the image.

    Args:
        weights: (length,), one a token, extra tokens (class tokens) included, which are left out of the picture.
        grid: the tokens' grid, two axes; with its extra tokens.
        image: (channels, height, width) or (height, width), any range of values; None: the heat map alone.
        file: also save the figure there; the suffix says the format.
    """
    from matplotlib.figure import Figure

    heat = _heat(weights, as_grid(grid))
    panels = 1 if image is None else 2
    figure = Figure(figsize=(3.4 * panels, 3.4), layout="constrained", dpi=120)
    for place in range(panels):
        figure.add_subplot(1, panels, place + 1).set_axis_off()
    if image is None:
        figure.axes[0].imshow(_scaled(heat), cmap=COLOURS, vmin=0, vmax=1)
    else:
        figure.axes[0].imshow(_picture(image))
        figure.axes[1].imshow(heat_over(weights, grid, image).permute(1, 2, 0).numpy())
    return _saved(figure, file)


def heat_over(weights: Tensor, grid: Grid | Sequence[int], image: Tensor) -> Tensor:
    """The image under the heat map of its tokens, (3, height, width) float32 between 0 and 1; arguments as of draw_image."""
    from matplotlib import colormaps

    picture, heat = _picture(image), _heat(weights, as_grid(grid))
    heat = torch.from_numpy(heat)[None, None]
    heat = F.interpolate(heat, picture.shape[:2], mode="bilinear", align_corners=False)[0, 0].numpy()
    coloured = colormaps[COLOURS](_scaled(heat))[..., :3]
    over = (1 - STRENGTH) * picture + STRENGTH * coloured
    return torch.from_numpy(over).permute(2, 0, 1).float()


def _heat(weights: Tensor, grid: Grid) -> np.ndarray:
    """The weights on the grid, without those of the extra tokens."""
    values = _array(weights, 1)
    if grid.ndim != 2 or len(values) != grid.length:
        raise UserError(
            "the weights do not fit the grid", given=f"{len(values)} weights, grid {grid.sizes} of {grid.length} tokens",
            allowed="one weight a token of a grid with two axes",
        )  # fmt: skip
    return np.delete(values, list(grid.extra)).reshape(grid.sizes)


def _places(texts: Sequence[str]) -> tuple[list[tuple[int, int, str]], int]:
    """Line, column and text of every token, and the number of lines; a token longer than a line is cut."""
    places, row, column = [], 0, 0
    for text in texts:
        text = text if columns(text) <= COLUMNS else cut(text, COLUMNS - 1) + "…"
        if column + columns(text) > COLUMNS:
            row, column = row + 1, 0
        places.append((row, column, text))
        column += columns(text)
        if text.endswith("⏎"):
            row, column = row + 1, 0
    return places, row + 1


def _drawable(texts: Sequence[str], family: str) -> tuple[list[str], list[str]]:
    """The texts as they can be drawn, and all fonts that they need."""
    found = [drawable(text, family) for text in texts]
    return [text for text, _ in found], list(dict.fromkeys([family, *(name for _, names in found for name in names)]))


def _visible(token: str) -> str:
    return token.replace("\n", "⏎").replace("\t", "→").replace("\r", "␍") or "∅"


def _picture(image: Tensor) -> np.ndarray:
    """(height, width, 3) between 0 and 1."""
    values = _array(image, image.dim())
    values = values[None] if values.ndim == 2 else values
    if values.ndim != 3:
        raise UserError("not an image", given=tuple(image.shape), allowed="(channels, height, width), (height, width)")
    values = np.repeat(values[:1], 3, 0) if len(values) < 3 else values[:3]
    return _scaled(values).transpose(1, 2, 0)


def _scaled(values: np.ndarray) -> np.ndarray:
    spread = np.ptp(values) if values.size else 0
    return (values - values.min()) / spread if spread > 0 else np.zeros_like(values)


def _array(values: Tensor, axes: int) -> np.ndarray:
    if values.dim() != axes:
        raise UserError("one sample at a time", given=f"{values.dim()} axes", allowed=f"{axes} axes")
    return values.detach().float().cpu().numpy()


def _check_count(tokens: Sequence[str], count: int) -> None:
    if len(tokens) != count:
        raise UserError("every token needs a weight", given=f"{len(tokens)} tokens, {count} weights")


def _saved(figure: Figure, file: str | os.PathLike | None) -> Figure:
    if file is not None:
        figure.savefig(file)
    return figure
