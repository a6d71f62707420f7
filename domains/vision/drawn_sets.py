"""Pictures of clouds of points and of graphs, drawn flat without pyplot; paths along the points of a cloud."""

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


def draw_graphs(
    graphs: Sequence[tuple[Tensor, Tensor]], titles: Sequence[str], heading: str, colours: Sequence[str] | None = None
) -> Figure:
    """Graphs in a grid, nodes in the colour of their tag.

    Args:
        graphs: tags (nodes,) and edges (edges, 2) of each; negative ones are none.
        titles, colours: one a graph. heading: above all.
    """
    from matplotlib.collections import LineCollection

    figure, places = grid_of_axes(len(graphs), titles, heading, colours)
    for place, (tags, edges) in zip(places, graphs, strict=False):
        tags, edges = tags[tags >= 0].cpu().numpy(), edges[edges[:, 0] >= 0].cpu().numpy()
        nodes = laid_out(len(tags), edges)
        place.add_collection(LineCollection(nodes[edges], colors="0.7", linewidths=0.6, zorder=1))
        place.scatter(*nodes.T, c=tags, s=9, cmap="tab20", vmin=0, vmax=19, linewidths=0, zorder=2)
    return figure


def laid_out(nodes: int, edges: np.ndarray, rounds: int = 60) -> np.ndarray:
    """Places for the nodes of a graph, (nodes, 2): all push one another away, edges pull (Fruchterman and Reingold 1991)."""
    place = np.random.default_rng(0).normal(size=(nodes, 2))
    pulled = np.zeros((nodes, nodes))
    pulled[edges[:, 0], edges[:, 1]] = 1
    for heat in np.linspace(0.3, 0.01, rounds):
        apart = place[:, None] - place[None]
        far = np.maximum(np.linalg.norm(apart, axis=2), 1e-3)
        move = (apart * (0.1 / far**2 - pulled * far - 0.02)[..., None]).sum(1)
        length = np.maximum(np.linalg.norm(move, axis=1, keepdims=True), 1e-9)
        place = place + move / length * np.minimum(length, heat)
    return place
