"""Pictures of scans: the paths over the grid, coloured from the first step to the last."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..errors import UserError
from .grid import Grid, as_grid
from .lookup import get
from .scan import Scan

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase

COLUMNS = 4
ARROWS, VOLUME_ARROWS = 60, 24
GREY, LIGHT, START, END = "0.45", "0.90", "#1a9850", "#d73027"


def draw(
    scan: Scan | str,
    grid: Grid | int | Sequence[int],
    path: int | None = None,
    file: str | os.PathLike | None = None,
) -> Figure:
    """A matplotlib figure with one panel for each path (and for each layer, where layers walk different paths).

    A line joins the tokens in visiting order, from dark to bright; where the next token is not a neighbour the line is
    thin. A circle marks the first token, a square the last; class tokens are diamonds beside the grid. In 1-D the
    token is drawn over the step.

    Args:
        scan: a Scan or its name.
        grid: a Grid or its sizes, one to three axes.
        path: draw only this path, counted from 0.
        file: also save the figure there; the suffix says the format.
    """
    scan, grid = get(scan), as_grid(grid)
    return _drawn([(scan, grid, _chosen(scan, grid, path))], file)


def draw_stages(
    scans: Scan | str | Sequence[Scan | str],
    grids: Sequence[Grid | Sequence[int]],
    names: Sequence[str] | None = None,
    file: str | os.PathLike | None = None,
) -> Figure:
    """The same for a model of several stages, one below the other.

    Args:
        scans: one for all stages, or one a stage.
        grids, names: of the stages, as the model says them (core/stages.py).
    """
    scans = [scans] * len(grids) if isinstance(scans, (Scan, str)) else scans
    if len(scans) != len(grids) or not len(grids):
        raise UserError("Every stage needs a scan.", given=f"{len(scans)} scans, {len(grids)} grids")
    stages = [(get(scan), as_grid(grid)) for scan, grid in zip(scans, grids, strict=True)]
    return _drawn([(scan, grid, _chosen(scan, grid, None)) for scan, grid in stages], file, names)


def _chosen(scan: Scan, grid: Grid, path: int | None) -> Sequence[int]:
    count = len(scan.order(grid))
    return range(count) if path is None else [_path_number(path, count)]


def _drawn(
    stages: Sequence[tuple[Scan, Grid, Sequence[int]]],
    file: str | os.PathLike | None,
    names: Sequence[str] | None = None,
) -> Figure:
    """A figure of the chosen paths of each scan on its grid."""
    from matplotlib.figure import Figure

    shapes = []
    for _, grid, chosen in stages:
        rows = math.ceil(len(chosen) / COLUMNS)
        columns = math.ceil(len(chosen) / rows)
        width, height = _panel_size(grid)
        shapes.append((rows, columns, width * columns + 0.7, height * rows + 0.9))
    heights = [height for *_, height in shapes]
    size = (max(width for _, _, width, _ in shapes), sum(heights))
    figure = Figure(figsize=size, layout="constrained", dpi=120)
    parts = [figure] if len(stages) == 1 else figure.subfigures(len(stages), 1, height_ratios=heights)
    names = names or [""] * len(stages)
    for part, (scan, grid, chosen), (rows, columns, _, _), name in zip(parts, stages, shapes, names, strict=True):
        orders, titles, points = scan.order(grid).numpy(), _titles(scan, grid.ndim), _points(grid)
        for place, number in enumerate(chosen, 1):
            axes = part.add_subplot(rows, columns, place, projection="3d" if grid.ndim == 3 else None)
            axes.set_title(titles[number], fontsize=9)
            panel = {1: _draw_line, 2: _draw_plane, 3: _draw_volume}[grid.ndim]
            panel(axes, grid, points, orders[number][orders[number] >= 0])
        part.suptitle(f"{name}{name and ': '}{scan} on {'×'.join(map(str, grid.sizes))} tokens", fontsize=11)
        _color_bar(part)
    if file is not None:
        figure.savefig(file)
    return figure


def _path_number(path: int, paths: int) -> int:
    try:
        number = operator.index(path)
    except TypeError:
        number = -1
    if not 0 <= number < paths:
        raise UserError(
            "There is no such path to draw.",
            given=f"path={path}",
            allowed=f"0 to {paths - 1}, or None for all",
            do="Name the file to write with file=." if isinstance(path, (str, os.PathLike)) else None,
        )
    return number


def _titles(scan: Scan, ndim: int) -> list[str]:
    """A title for each path, in order."""
    titles = []
    for part in scan.parts:
        count = part.mode.count(ndim, **dict(part.values))
        kind = "layer" if part.mode.per_layer else "path"
        numbers = range(count) if part.layer is None else [part.layer % count]
        titles += [f"{part.mode_name}, {kind} {number}" if count > 1 else part.mode_name for number in numbers]
    return titles


def _panel_size(grid: Grid) -> tuple[float, float]:
    """Inches of one panel: (width, height)."""
    if grid.ndim != 2:
        return 3.4, 3.4
    rows, columns = (max(size, 1) for size in grid.sizes)
    columns += 2 if grid.extra else 0
    longest = max(rows, columns)
    return max(1.6, 3.0 * columns / longest), max(1.1, 3.0 * rows / longest) + 0.3


def _points(grid: Grid) -> np.ndarray:
    """Where each token of the sequence is drawn, (length, 3): column, row, slice; extra tokens beside the grid."""
    points = np.zeros((grid.length, 3))
    on_grid = np.delete(np.arange(grid.length), list(grid.extra))
    places = np.indices(grid.sizes).reshape(grid.ndim, -1)
    for column, place in enumerate(reversed(places)):
        points[on_grid, column] = place
    for position in grid.extra:
        share = position / max(grid.length - 1, 1)
        points[position] = [-1.8, *(share * (max(size, 1) - 1) for size in grid.sizes[-2::-1]), 0, 0][:3]
    return points


def _steps(
    points: np.ndarray, order: np.ndarray, extra: Sequence[int] = ()
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Line pieces (steps, 2, 3), their colours (steps, 4), and whether each is a normal step rather than a jump."""
    from matplotlib import colormaps

    places = points[order]
    pieces = np.stack([places[:-1], places[1:]], axis=1)
    colors = colormaps["plasma"](np.linspace(0, 0.9, max(len(pieces), 1)))[: len(pieces)]
    reach = np.abs(places[1:] - places[:-1]).max(-1, initial=0)
    reach[np.isin(order[:-1], extra) | np.isin(order[1:], extra)] = np.inf
    # A skip scan's nearest next token is some steps away: that is its normal step, not a jump.
    near = (reach <= max(1.0, reach.min(initial=np.inf)) + 0.01) & np.isfinite(reach)
    return pieces, colors, near


def _marks(axes: Axes, grid: Grid, points: np.ndarray, order: np.ndarray, size: float) -> None:
    """The extra tokens, and the path's first and last token."""
    dimensions = 3 if grid.ndim == 3 else 2
    style = {"zorder": 5, "edgecolors": "white", "linewidths": 0.8}
    if dimensions == 3:
        style["depthshade"] = False
    extra = [position for position in grid.extra if position in order]
    groups = [(extra, "D", GREY, 1.0)]
    if len(order):
        groups += [(order[:1], "o", START, 1.4), (order[-1:], "s", END, 1.0)]
    for tokens, marker, color, scale in groups:
        if len(tokens):
            axes.scatter(*points[tokens, :dimensions].T, marker=marker, color=color, s=size * scale, **style)


def _draw_plane(axes: Axes, grid: Grid, points: np.ndarray, order: np.ndarray) -> None:
    from matplotlib.collections import LineCollection, PolyCollection

    rows, columns = grid.sizes
    cell = min(200.0 / max(rows, columns, 1), 40.0)
    centres = np.delete(points, list(grid.extra), axis=0)[:, :2]
    square = np.array([[-0.46, -0.46], [0.46, -0.46], [0.46, 0.46], [-0.46, 0.46]])
    axes.add_collection(PolyCollection(centres[:, None] + square, facecolors="0.95", edgecolors=LIGHT, linewidths=0.4))
    pieces, colors, near = _steps(points[:, :2], order, grid.extra)
    width = float(np.clip(cell / 9, 0.5, 2.4))
    axes.add_collection(LineCollection(pieces[~near], colors=colors[~near], linewidths=width * 0.4, alpha=0.6))
    axes.add_collection(LineCollection(pieces[near], colors=colors[near], linewidths=width, capstyle="round"))
    heads, head_colors = _arrow_heads(pieces, colors, near)
    axes.add_collection(PolyCollection(heads, facecolors=head_colors, edgecolors="none", zorder=4))
    _marks(axes, grid, points, order, size=float(np.clip(cell * 1.6, 6, 60)))
    axes.set(xlim=((-2.6 if grid.extra else -0.7), columns - 0.3), ylim=(rows - 0.3, -0.7), aspect="equal")
    axes.axis("off")


def _arrow_heads(pieces: np.ndarray, colors: np.ndarray, near: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Triangles (arrows, 3, 2) in the middle of some pieces, and their colours."""
    if not len(pieces):
        return np.zeros((0, 3, 2)), np.zeros((0, 4))
    shown = np.flatnonzero(near) if near.any() else np.arange(len(pieces))
    shown = shown[:: math.ceil(len(shown) / ARROWS)]
    starts, ends = pieces[shown, 0], pieces[shown, 1]
    ahead = (ends - starts) / np.linalg.norm(ends - starts, axis=1, keepdims=True)
    across = ahead[:, ::-1] * [1, -1]
    middle = (starts + ends) / 2
    size = 0.2 * max(1.0, np.ptp(pieces, axis=(0, 1)).max() / 24)
    return np.stack(
        [middle + size * ahead, middle + size * (across - ahead), middle - size * (across + ahead)], 1
    ), colors[shown]


def _draw_volume(axes: Axes, grid: Grid, points: np.ndarray, order: np.ndarray) -> None:
    from mpl_toolkits.mplot3d.art3d import Line3DCollection

    slices, rows, columns = grid.sizes
    # Drawn with the slices going away from the viewer and the rows downwards.
    points = points[:, [0, 2, 1]]
    cell = min(200.0 / max(*grid.sizes, 1), 40.0)
    axes.scatter(*points.T, color="0.75", s=cell / 4, depthshade=False, linewidths=0)
    pieces, colors, near = _steps(points, order, grid.extra)
    for chosen, width, alpha in ((~near, 0.7, 0.4), (near, float(np.clip(cell / 9, 0.6, 2.2)), 1.0)):
        if chosen.any():
            axes.add_collection3d(
                Line3DCollection(pieces[chosen], colors=colors[chosen], linewidths=width, alpha=alpha)
            )
    shown = np.flatnonzero(near)[:: math.ceil(max(near.sum(), 1) / VOLUME_ARROWS)]
    if len(shown):
        shaft = (pieces[shown, 1] - pieces[shown, 0]) * 0.6
        axes.quiver(*pieces[shown, 0].T, *shaft.T, color="0.25", arrow_length_ratio=0.6, linewidths=1.0)
    _marks(axes, grid, points, order, size=float(np.clip(cell * 1.4, 6, 50)))
    axes.set(xlim=((-2 if grid.extra else 0), max(columns - 1, 1)))
    axes.set(ylim=(0, max(slices - 1, 1)), zlim=(max(rows - 1, 1), 0))
    axes.set_box_aspect(
        (max(columns - 1, 1) + (2 if grid.extra else 0), max(slices - 1, 1) * 1.2, max(rows - 1, 1)), zoom=0.9
    )
    axes.view_init(elev=22, azim=-58)
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.set_pane_color((1, 1, 1, 0))
        axis.set_ticks([])
    for named, words in ((axes.set_xlabel, "width"), (axes.set_ylabel, "depth or time"), (axes.set_zlabel, "height")):
        named(words, fontsize=7, labelpad=-14)


def _draw_line(axes: Axes, grid: Grid, points: np.ndarray, order: np.ndarray) -> None:
    from matplotlib.collections import LineCollection

    # Step downwards, token to the right: the raster order is the falling diagonal.
    tokens = np.arange(grid.length)
    steps = np.arange(len(order))
    places = np.stack([order, steps], axis=1).astype(float)
    pieces, colors, near = _steps(places, np.arange(len(order)))
    axes.add_collection(LineCollection(pieces[~near], colors=colors[~near], linewidths=0.8, alpha=0.6))
    axes.add_collection(LineCollection(pieces[near], colors=colors[near], linewidths=2, capstyle="round"))
    if grid.length <= 64:
        axes.scatter(order[1:], steps[1:], color=colors, s=10, zorder=3)
    for position in grid.extra:
        axes.axvline(position, color=LIGHT, linewidth=3, zorder=0)
    shown = np.zeros((len(tokens), 3))
    shown[order, 0], shown[order, 1] = order, steps
    _marks(axes, grid, shown, order, size=30)
    margin = 0.04 * max(grid.length, 10)
    axes.set(xlim=(-margin, max(grid.length - 1, 0) + margin), ylim=(max(grid.length - 1, 0) + margin, -margin))
    axes.set_xlabel("token", fontsize=8)
    axes.set_ylabel("step", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    axes.yaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    axes.spines[["top", "right"]].set_visible(False)


def _color_bar(figure: FigureBase) -> None:
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    shown = LinearSegmentedColormap.from_list("steps", colormaps["plasma"](np.linspace(0, 0.9, 64)))
    bar = figure.colorbar(ScalarMappable(Normalize(0, 1), shown), ax=figure.axes, shrink=0.6, aspect=30, pad=0.02)
    bar.set_ticks([0, 1], labels=["first", "last"], fontsize=8)
    bar.outline.set_visible(False)
