"""The tokens that a scan walks over: a grid, and the tokens of the sequence that are not on it."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..errors import UserError, closest

CLASS_TOKENS = ("none", "front", "middle", "end", "double")


@dataclass(frozen=True)
class Grid:
    """A grid of tokens, numbered row-major, and the extra tokens (class tokens) of the same sequence.

    Args:
        sizes: tokens along each axis: (length,), (height, width), (frames or depth, height, width).
        extra: positions, in the whole sequence, of the tokens that are not on the grid, ascending.
    """

    sizes: tuple[int, ...]
    extra: tuple[int, ...] = ()

    def __post_init__(self):
        if symbolic((*self.sizes, *self.extra)):  # checked when the graph runs
            return
        sizes = _integers(self.sizes, "The sizes of a grid")
        extra = _integers(self.extra, "The positions of the extra tokens")
        if not sizes or min(sizes) < 0:
            raise UserError(
                "A grid needs at least one axis, and no axis can be shorter than nothing.",
                given=sizes,
                allowed="one size per axis, each 0 or more, such as (14, 14)",
            )
        length = math.prod(sizes) + len(extra)
        if list(extra) != sorted(set(extra)) or (extra and not 0 <= extra[0] <= extra[-1] < length):
            raise UserError(
                "The positions of the extra tokens do not fit the sequence.",
                given=f"extra={extra} on a grid of {sizes}",
                allowed=f"ascending positions without repeats, from 0 to {length - 1}",
                do="Use Grid.with_class_token(sizes, 'middle') for a class token.",
            )
        object.__setattr__(self, "sizes", sizes)
        object.__setattr__(self, "extra", extra)

    @classmethod
    def with_class_token(cls, sizes: Sequence[int], where: str) -> Grid:
        """A grid and its class token: "front", "middle" (position tokens // 2), "end", "double" (both ends), "none"."""
        tokens = math.prod(sizes)
        extra = {"none": (), "front": (0,), "middle": (tokens // 2,), "end": (tokens,), "double": (0, tokens + 1)}
        if where not in extra:
            near = closest(where, CLASS_TOKENS)
            raise UserError(
                "There is no such place for the class token.",
                given=where,
                allowed=CLASS_TOKENS,
                do=f"Did you mean '{near}'?" if near else None,
            )
        return cls(tuple(sizes), extra[where])

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.sizes)

    @property
    def tokens(self) -> int:
        """Number of tokens on the grid."""
        return math.prod(self.sizes)

    @property
    def length(self) -> int:
        """Number of tokens in the sequence: those on the grid and the extra ones."""
        return self.tokens + len(self.extra)


def as_grid(grid: Grid | int | Sequence[int]) -> Grid:
    """A Grid from itself, from sizes, or from one length."""
    if isinstance(grid, Grid):
        return grid
    return Grid((grid,) if hasattr(grid, "__index__") else grid)


def symbolic(sizes: Sequence[int]) -> bool:
    """Whether a graph is being made in which these sizes may stand for any."""
    return torch.compiler.is_dynamo_compiling() or any(isinstance(size, torch.SymInt) for size in sizes)


def _integers(values: Sequence[int], what: str) -> tuple[int, ...]:
    try:
        return tuple(operator.index(value) for value in values)
    except TypeError:
        raise UserError(f"{what} must be whole numbers.", given=values, allowed="a tuple such as (14, 14)") from None
