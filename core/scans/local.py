"""Windowed scans: all tokens of one window, then the next window."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import UserError
from .path import Path, with_reverses
from .raster import bidirectional


def local(sizes: Sequence[int], window: int | tuple[int, ...] = 7, flip: bool = False) -> list[Path]:
    """Windows in raster order, tokens of a window in raster order; windows at the border are cut to the grid.

    `window` is the side of a window, or one side for each axis; `flip` walks the path backwards.
    """
    sides = _sides(sizes, window)
    rank = np.zeros((1,) * len(sizes), dtype=np.int64)
    for part, bases in (
        (np.floor_divide, [-(-size // side) for size, side in zip(sizes, sides, strict=True)]),
        (np.mod, sides),
    ):
        for places, side, base in zip(np.indices(sizes, sparse=True), sides, bases, strict=True):
            rank = rank * base + part(places, side)
    return [Path(np.argsort(rank, axis=None, kind="stable"), backward=flip)]


def local_flip(sizes: Sequence[int], window: int | tuple[int, ...] = 7) -> list[Path]:
    """The windowed path backwards."""
    return local(sizes, window, flip=True)


def local_vim(sizes: Sequence[int], window: int | tuple[int, ...] = 2) -> list[Path]:
    """Raster, its reverse, windows, their reverse: LocalVim's four directions without the search."""
    return bidirectional(sizes) + with_reverses(local(sizes, window))


def _sides(sizes: Sequence[int], window: int | tuple[int, ...]) -> tuple[int, ...]:
    sides = (window,) * len(sizes) if isinstance(window, int) else window
    grid = "×".join(map(str, sizes))
    if len(sides) != len(sizes):
        raise UserError(
            "The window has another number of axes than the grid.",
            given=f"window={window} on a grid of {grid}",
            allowed=f"one whole number, or {len(sizes)} of them",
        )
    if min(sizes) > 0 and all(side > size for side, size in zip(sides, sizes, strict=True)):
        raise UserError(
            "The window is larger than the whole grid: this would be the raster scan.",
            given=f"window={window} on a grid of {grid}",
            allowed=f"windows of 1 to {max(sizes)}",
            do=f"Set scan.window={max(2, max(sizes) // 2)}, or choose scan=raster."
            if max(sizes) > 2
            else "Choose scan=raster.",
        )
    return sides
