"""Scans of more than one scale or more than one input: hierarchical, dilated, interleaved, side by side."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from ..errors import UserError
from .local import local
from .path import Path, axis_orders, nested, numbered, with_reverses
from .raster import raster
from .skip import MOST_PATHS


def hierarchical(sizes: Sequence[int], windows: tuple[int, ...] = (2, 4)) -> list[Path]:
    """Windows of one side after another, then the whole grid, each both ways: from the near to the far."""
    return with_reverses([path for window in windows for path in local(sizes, window)] + raster(sizes))


def dilated(sizes: Sequence[int], steps: tuple[int, ...] = (1, 2)) -> list[Path]:
    """For each of the steps all tokens, those so many apart one after another, one offset after another; each both ways.

    Offsets and the tokens of one of them are in raster order; a step of 1 is the raster. Unlike `skip`, whose paths share the
    tokens between them, each path visits all of them.
    """
    grid, paths = numbered(sizes), []
    for step in steps:
        offsets = itertools.product(range(step), repeat=len(sizes))
        parts = [grid[tuple(slice(offset, None, step) for offset in each)].ravel() for each in offsets]
        paths.append(Path(np.concatenate(parts)))
    return with_reverses(paths)


def multi_scale(sizes: Sequence[int], step: int = 2) -> list[Path]:
    """Raster over all tokens; over every step-th of them along each axis the reverse, column by column, and that backwards.

    MSVMamba's four paths (section 3.3): one sees everything, three see four times fewer tokens each.
    """
    coarse = numbered(sizes)[tuple(slice(None, None, step) for _ in sizes)]
    rows, columns = Path(coarse.ravel()), Path(coarse.T.ravel())
    return [*raster(sizes), rows.reversed(), columns, columns.reversed()]


def interleaved(sizes: Sequence[int]) -> list[Path]:
    """Place by place, at each through all inputs; sizes are (inputs, ...). Places along each axis in turn, each both ways."""
    inner = axis_orders(len(sizes) - 1)
    return with_reverses([nested(sizes, (*(axis + 1 for axis in axes), 0)) for axes in inner])


def side_by_side(sizes: Sequence[int], inputs: int = 2) -> list[Path]:
    """Input after input along the first axis, each in raster order on a path of its own; every token is on exactly one of them.

    Where the first axis does not divide evenly, the first inputs are a row longer (numpy.array_split).
    """
    if inputs > MOST_PATHS:
        raise UserError("There are too many inputs.", given=f"inputs={inputs}", allowed=f"1 to {MOST_PATHS}")
    return [Path(part.ravel()) for part in np.array_split(numbered(sizes), inputs)]


def side_by_side_steps(sizes: Sequence[int], inputs: int = 2) -> int:
    """Grid tokens on the first path, which is the longest."""
    return (sizes[0] + inputs - 1) // inputs * math.prod(sizes[1:])
