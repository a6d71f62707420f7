"""Paths: the orders in which a scan visits the tokens of a grid, and how extra tokens join them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .grid import Grid


class Path(NamedTuple):
    """One path: grid tokens (numbered row-major) in visiting order.

    A backward path is walked from its last token to its first, extra tokens included, so that it is the exact
    reversal of the forward path with the same order.
    """

    order: np.ndarray
    backward: bool = False

    def reversed(self) -> Path:
        """The same path walked the other way."""
        return Path(self.order, not self.backward)


def numbered(sizes: Sequence[int]) -> np.ndarray:
    """The grid's token numbers, row-major, as an array of shape `sizes`."""
    return np.arange(np.prod(sizes, dtype=np.int64)).reshape(sizes)


def nested(sizes: Sequence[int], axes: Sequence[int]) -> Path:
    """The path of nested loops over `axes`: the first is the outermost, the last runs fastest."""
    return Path(numbered(sizes).transpose(axes).ravel())


def axis_orders(ndim: int) -> list[tuple[int, ...]]:
    """Loop orders in which each axis runs fastest once: order k swaps the last axis with the k-th from the end.

    2-D: row-major, column-major. 3-D: (0, 1, 2), (0, 2, 1), (2, 1, 0), the three orders of Mamba-ND.
    """
    orders = []
    for k in range(ndim):
        axes = list(range(ndim))
        axes[-1], axes[-1 - k] = axes[-1 - k], axes[-1]
        orders.append(tuple(axes))
    return orders


def with_reverses(paths: Sequence[Path]) -> list[Path]:
    """The paths, each followed by its reverse."""
    return [way for path in paths for way in (path, path.reversed())]


def table(paths: Sequence[Path], grid: Grid) -> np.ndarray:
    """The paths as sequence positions, shape (paths, steps), int32; -1 fills the end of the shorter paths.

    A forward path visits an extra token after as large a share of its own grid steps as the share of grid tokens that
    precede it in the sequence: on a path over the whole grid, at the step that is its position.
    """
    on_grid = np.delete(np.arange(grid.length), list(grid.extra))
    before = np.array(grid.extra, dtype=np.int64) - np.arange(len(grid.extra))
    rows = []
    for path in paths:
        at = before * len(path.order) // max(grid.tokens, 1)
        row = np.insert(on_grid[path.order], at, grid.extra)
        rows.append(row[::-1] if path.backward else row)
    result = np.full((len(rows), max(map(len, rows))), -1, dtype=np.int32)
    for filled, row in zip(result, rows, strict=True):
        filled[: len(row)] = row
    return result
