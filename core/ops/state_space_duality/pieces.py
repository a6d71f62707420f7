"""Sequences that a matrix product over a chunk must not mix: 0 times what is not finite is not 0."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor


class Piece(NamedTuple):
    """One sequence of a row that holds several.

    at: its row of the batch. steps, rows: its own. carries: whether it goes on from the initial state. last: whether the
    row ends with it.
    """

    at: slice
    steps: slice
    rows: slice
    carries: bool
    last: bool


def pieces(restart: Tensor | None, rank: int, *given: Tensor | None) -> Iterator[Piece]:
    """The sequences of those rows of a batch in which something given is not finite.

    Args:
        restart: (batch, steps) bool, where sequences begin.
        rank: rows of a step.
        given: (batch, ...).
    """
    if restart is None or not restart.numel():
        return
    # Of finite numbers the sum may still be infinite: such rows only take longer.
    total = sum(t.flatten(1).sum(1) for t in given if t is not None)
    for row in (~total.isfinite()).nonzero().flatten().tolist():
        begins = [0, *(restart[row, 1:].nonzero().flatten() + 1).tolist(), restart.shape[1]]
        for begin, end in itertools.pairwise(begins):
            steps, rows = slice(begin, end), slice(begin * rank, end * rank)
            carries = begin == 0 and not restart[row, 0]
            yield Piece(slice(row, row + 1), steps, rows, carries, end == restart.shape[1])
