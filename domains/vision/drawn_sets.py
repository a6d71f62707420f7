"""Pictures of clouds of points, drawn flat without pyplot: seen from above one corner, what is near dark; paths along them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from ...core.lettering import drawable
from ...core.pictures import INK
from .image_grid import even_columns

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TURN, TILT = 0.6, 0.45  # radians that a cloud is seen from the side, and from above


def grid_of_axes(
    count: int, titles: Sequence[str], heading: str, colours: Sequence[str] | None = None
) -> tuple[Figure, list[Axes]]:
    """A figure with as many empty places as things are drawn, each under its title."""
    from matplotlib.figure import Figure

    columns = even_columns(count)
    rows = -(-count // columns)
    lines = max((title.count("\n") + 1 for title in titles), default=1)
    figure = Figure(
        figsize=(max(4.5, 1.5 * columns + 0.3), rows * (1.4 + 0.17 * lines) + 0.55), dpi=110, facecolor="white"
    )
    heading, fonts = drawable(heading)
    figure.suptitle(
        heading,
        x=0.02,
        y=0.99,
        ha="left",
        va="top",
        fontsize=10,
        color=INK,
        weight="bold",
        family=fonts,
        parse_math=False,
    )
    places = list(figure.subplots(rows, columns, squeeze=False).flatten())
    for place in places:
        place.set_axis_off()
        place.set_aspect("equal")
    for number, (place, title) in enumerate(zip(places, titles, strict=False)):
        title, fonts = drawable(title)
        place.set_title(
            title, fontsize=7.5, pad=3, color=colours[number] if colours else INK, family=fonts, parse_math=False
        )
    height = figure.get_figheight()
    figure.subplots_adjust(
        left=0.01, right=0.99, bottom=0.01, top=1 - (0.42 + 0.17 * lines) / height, wspace=0.08, hspace=0.2 * lines
    )
    return figure, places


def draw_clouds(
    clouds: Sequence[Tensor], titles: Sequence[str], heading: str, colours: Sequence[str] | None = None,
    paths: Sequence[Tensor] | None = None,
) -> Figure:  # fmt: skip
    """Clouds in a grid.

    Args:
        clouds: (points, 3) each, the third axis upright.
        titles, colours: one a cloud. heading: above all.
        paths: for each cloud the points in the order of a path, (points,), which is drawn; None: none.
    """
    figure, places = grid_of_axes(len(clouds), titles, heading, colours)
    for number, (place, cloud) in enumerate(zip(places, clouds, strict=False)):
        across, up, near = seen(cloud.detach().float().cpu().numpy())
        if paths is None:
            order = near.argsort()
            place.scatter(across[order], up[order], c=near[order], s=3, cmap="viridis_r", linewidths=0)
            continue
        order = paths[number].cpu().numpy()
        steps = np.linspace(0, 1, len(order))
        place.plot(across[order], up[order], color="0.75", linewidth=0.6, zorder=1)
        place.scatter(across[order], up[order], c=steps, s=7, cmap="plasma", linewidths=0, zorder=2)
    return figure


def seen(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where points (points, 3) are seen from above one corner: across, up, and how near."""
    x, y, z = points.T
    across, depth = x * np.cos(TURN) - y * np.sin(TURN), x * np.sin(TURN) + y * np.cos(TURN)
    return across, z * np.cos(TILT) + depth * np.sin(TILT), z * np.sin(TILT) - depth * np.cos(TILT)
