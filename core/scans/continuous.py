"""Scans whose next token is always a neighbour: snakes that turn round at the end of each row."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch

from ..errors import UserError
from .cache import OrderCache
from .grid import Grid, as_grid
from .path import Path, axis_orders, numbered, with_reverses

DIRECTIONS = OrderCache(64)


def snake(sizes: Sequence[int], axes: Sequence[int], corner: Sequence[int] | None = None) -> Path:
    """A snake with the last of `axes` fastest; `corner` says for each axis whether it starts at the far end."""
    grid = numbered(sizes)
    if corner is not None:
        grid = np.flip(grid, [axis for axis, far in enumerate(corner) if far])
    order = grid.transpose(axes).copy()
    for axis in range(1, order.ndim):
        sweeps = order.reshape(math.prod(order.shape[:axis]), *order.shape[axis:])
        sweeps[1::2] = sweeps[1::2, ::-1].copy()
    return Path(order.ravel())


def continuous(sizes: Sequence[int]) -> list[Path]:
    """Row snake, its reverse, column snake, its reverse; in 3-D one such pair for each fastest axis."""
    return with_reverses([snake(sizes, axes) for axes in axis_orders(len(sizes))])


def zigzag(sizes: Sequence[int]) -> list[Path]:
    """One path a layer: a row snake and a column snake from each corner, eight in all; 24 in 3-D (three from each)."""
    corners = itertools.product((False, True), repeat=len(sizes))
    return [snake(sizes, axes, corner) for corner in corners for axes in axis_orders(len(sizes))]


def directions(grid: Grid | Sequence[int]) -> torch.Tensor:
    """PlainMamba's direction of the step into each token along the four continuous paths: the row of `direction_Bs`.

    Args:
        grid: (height, width), without extra tokens.

    Returns:
        int32, (4, steps), by step of the path: 0 the start, 1 right, 2 left, 3 up, 4 down. Shared: do not write to it.
    """
    grid = as_grid(grid)
    if grid.ndim != 2 or grid.extra:
        raise UserError(
            "Directions exist only on a 2-D grid without class tokens.",
            given=f"sizes {grid.sizes}, extra tokens at {grid.extra}",
            allowed="(height, width)",
            do="Choose model.class_token=none." if grid.extra else None,
        )
    return DIRECTIONS.get(grid.sizes, lambda: _directions(grid.sizes))


def _directions(sizes: tuple[int, ...]) -> torch.Tensor:
    moves = {(0, 1): 1, (0, -1): 2, (-1, 0): 3, (1, 0): 4}
    number = np.zeros((3, 3), dtype=np.int32)
    for (rows, columns), move in moves.items():
        number[rows + 1, columns + 1] = move
    result = []
    for path in continuous(sizes):
        order = path.order[::-1] if path.backward else path.order
        places = np.stack(np.divmod(order, max(sizes[1], 1)))
        rows, columns = np.diff(places, axis=1)
        into = number[rows + 1, columns + 1]
        result.append(np.concatenate([np.zeros(min(len(order), 1), dtype=np.int32), into]))
    return torch.from_numpy(np.stack(result))
