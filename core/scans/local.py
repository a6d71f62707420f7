"""Windowed scans: all tokens of one window, then the next window."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import UserError, say_once
from .path import Path, numbered, with_reverses
from .raster import bidirectional


def local(sizes: Sequence[int], window: int | tuple[int, ...] = 7, flip: bool = False) -> list[Path]:
    """Windows in raster order, tokens of a window in raster order; windows at the border are cut to the grid.

    One larger than the grid is the whole grid: later stages of a hierarchical network have few tokens.
    `window` is the side of a window, or one side for each axis; `flip` walks the path backwards.
    """
    if min(sizes) == 0:
        return [Path(numbered(sizes).ravel(), backward=flip)]
    sides = _sides(sizes, window)
    places = np.indices(sizes, sparse=True)
    windows = [(place // side, -(-size // side)) for place, side, size in zip(places, sides, sizes, strict=True)]
    inside = [(place % side, side) for place, side in zip(places, sides, strict=True)]
    rank = np.zeros((1,) * len(sizes), dtype=np.int64)
    for number, base in windows + inside:
        rank = rank * base + number
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
    if all(side > size for side, size in zip(sides, sizes, strict=True)):
        say_once(
            f"scan window={window} is larger than a grid of {grid}: there it is the raster scan", ("window", window)
        )
    return sides
