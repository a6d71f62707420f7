"""Generalised Hilbert curves over rectangles and boxes of any size.

A block of cells is crossed from one corner to the far end of its first side. It is split into smaller blocks, crossed
one after the other, until each is a line. The splits are those of J. Červený's "gilbert" curves; which sides are halved
and where is chosen here so that every part can be crossed by steps between neighbours. That is possible when the first
side is even, or when no side is (on a chessboard, the two ends then have the colours that such a walk needs).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from .path import Path, with_reverses

LINE, HALVES, TURN_SECOND, TURN_THIRD, FIVE = range(5)
PARTS = np.array([1, 2, 3, 3, 5])


def hilbert(sizes: Sequence[int], paths: Literal[1, 2, 4] = 4) -> list[Path]:
    """A generalised Hilbert curve, its reverse, the transposed curve, its reverse; `paths` keeps the first 1, 2 or 4.

    Consecutive tokens are neighbours, for any sizes; the transposed curve over a rectangle with one odd and one even
    side cannot help one diagonal step.
    """
    first, second = _side_orders(sizes)
    curves = with_reverses([_curve(sizes, first)] + ([_curve(sizes, second)] if paths == 4 else []))
    return curves[:paths]


def _side_orders(sizes: Sequence[int]) -> tuple[list[int], list[int]]:
    """The axes in the roles of first, second (and third) side, for the curve and for its transposed."""
    axes = sorted(range(len(sizes)), key=lambda axis: (sizes[axis] % 2, -sizes[axis], -axis))
    swapped = [axes[1], axes[0], *axes[2:]]
    one_even_side = sizes[axes[0]] % 2 == 0 and sizes[axes[1]] % 2 == 1
    if one_even_side and len(sizes) == 3 and sizes[axes[2]] > 1:
        swapped = [axes[0], axes[2], axes[1]]
    return axes, swapped


def _curve(sizes: Sequence[int], sides: Sequence[int]) -> Path:
    """The curve over the grid whose axis sides[0] is crossed."""
    if min(sizes) == 0:
        return Path(np.zeros(0, dtype=np.int64))
    # One block is (corner, first side, second side, third side), each a vector in cells; a flat grid is one cell deep.
    block = np.zeros((1, 4, 3), dtype=np.int32)
    for role, axis in enumerate(sides):
        block[0, 1 + role, axis] = sizes[axis]
    if len(sizes) == 2:
        block[0, 3, 2] = 1
    cells = _cells(_refine(block))[:, : len(sizes)]
    return Path(np.ravel_multi_index(tuple(cells.T), tuple(sizes)))


def _refine(blocks: np.ndarray) -> np.ndarray:
    """Splits blocks (blocks, 4, 3) until all are lines; the parts of a block take its place in the sequence."""
    while True:
        blocks, kinds = _classify(blocks)
        if not kinds.any():
            return blocks
        counts = PARTS[kinds]
        starts = np.cumsum(counts) - counts
        result = np.empty((counts.sum(), 4, 3), dtype=np.int32)
        result[starts[kinds == LINE]] = blocks[kinds == LINE]
        for kind, split in SPLITS.items():
            chosen = kinds == kind
            places = starts[chosen][:, None] + np.arange(PARTS[kind])
            result[places] = split(*np.moveaxis(blocks[chosen], 1, 0))
        blocks = result


def _classify(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How each block is split; second and third side change places where five parts can only so be crossed."""
    width, height, depth = _lengths(blocks.transpose(1, 0, 2)[1:])
    wide = (2 * width > 3 * height) & (2 * width > 3 * depth)
    odd = (width % 2 == 1) & (height % 2 == 1) & (depth % 2 == 1)
    kinds = np.full(len(blocks), FIVE, dtype=np.int8)
    kinds[(3 * depth > 4 * height) | (odd & (depth > height))] = TURN_THIRD
    kinds[(3 * height > 4 * depth) | (odd & (height >= depth))] = TURN_SECOND
    kinds[wide] = HALVES
    kinds[width * height * depth == np.maximum(np.maximum(width, height), depth)] = LINE
    swap = (kinds == FIVE) & (height % 2 == 0) & (depth % 2 == 1)
    if swap.any():
        blocks = blocks.copy()
        blocks[swap] = blocks[swap][:, [0, 1, 3, 2]]
    return blocks, kinds


def _halves(corner: np.ndarray, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Two blocks in a row, for a block much longer than wide."""
    a1, a2 = _halved(a)
    return _parts((corner, a1, b, c), (corner + a1, a2, b, c))


def _turn_second(corner: np.ndarray, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Up the second side, across, and down again."""
    a1, a2 = _halved(a, even=False)
    b1, b2 = _halved(b)
    down = corner + _last(a) + _last(b1)
    return _parts((corner, b1, a1, c), (corner + b1, a, b2, c), (down, -b1, -a2, c))


def _turn_third(corner: np.ndarray, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Up the third side, across, and down again."""
    return _turn_second(corner, a, c, b)


def _five(corner: np.ndarray, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """The five parts of the Hilbert curve's cube: up, over, across, back, down."""
    both_odd = (_lengths(b) % 2 == 1) & (_lengths(c) % 2 == 1)
    a1, a2 = _halved(a, even=~both_odd, odd=both_odd)
    b1, b2 = _halved(b)
    c1, c2 = _halved(c)
    far = corner + _last(a)
    return _parts(
        (corner, b1, c1, a1),
        (corner + b1, c, a1, b2),
        (corner + _last(b1) + _last(c), a, -b1, -c2),
        (far + b1 + _last(c), -c, -a2, b2),
        (far + _last(b1), -b1, c1, -a2),
    )


SPLITS: dict[int, Callable[..., np.ndarray]] = {
    HALVES: _halves,
    TURN_SECOND: _turn_second,
    TURN_THIRD: _turn_third,
    FIVE: _five,
}


def _lengths(sides: np.ndarray) -> np.ndarray:
    """Cells along sides (..., 3), each of which lies along one axis."""
    x, y, z = np.moveaxis(sides, -1, 0)
    return np.abs(x + y + z)


def _last(side: np.ndarray) -> np.ndarray:
    """The step from a side's first cell to its last."""
    return side - np.sign(side)


def _halved(side: np.ndarray, even: np.ndarray | bool = True, odd: np.ndarray | bool = False):
    """A side in two; the first half gets one cell more where its length should be even (or odd) and is not."""
    length = _lengths(side)
    half = length // 2
    half = half + (((half % 2 == 1) & even) | ((half % 2 == 0) & odd)) * (length > 2)
    first = np.sign(side) * half[..., None]
    return first, side - first


def _parts(*parts: tuple[np.ndarray, ...]) -> np.ndarray:
    """(blocks, parts, 4, 3) from a tuple of (corner, first, second, third side) for each part."""
    return np.stack([np.stack(part, axis=1) for part in parts], axis=1)


def _cells(lines: np.ndarray) -> np.ndarray:
    """The cells (cells, 3) of blocks that are lines, in order."""
    sides = lines.transpose(1, 0, 2)[1:]
    lengths = _lengths(sides)
    count = np.maximum(np.maximum(*lengths[:2]), lengths[2])
    first, second, third = np.sign(sides) * (lengths > 1)[..., None]
    step = first + second + third
    along = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    return np.repeat(lines[:, 0], count, axis=0) + np.repeat(step, count, axis=0) * along[:, None]
