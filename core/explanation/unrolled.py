"""A call of a mixer as matrices along its paths, and those matrices in token order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..ops.paths import restart_of_step, token_of_step


class Steps(NamedTuple):
    """The steps of a call's paths.

    token: (batch, paths, steps) int64, the token at each step, 0 where a short path has ended.
    visited: (batch, paths, steps) bool, whether there is one.
    sees: (batch, paths, steps, steps) bool, whether step i (rows) can take anything from step j: not from a later one, nor
        from another sequence.
    """

    token: Tensor
    visited: Tensor
    sees: Tensor


def steps_of(
    order: Tensor | None, seq_idx: Tensor | None, batch: int, paths: int, length: int, device: torch.device
) -> Steps:
    """The steps of a scan.

    Args:
        order: ([batch,] paths, steps), integer, -1 at the end of short paths; None: the raster order.
        seq_idx: (batch, length) or None.
    """
    order = order[None] if order is not None and order.dim() == 2 else order
    token, visited = token_of_step(order, batch, paths, length, device)
    restart = restart_of_step(seq_idx, token, visited)
    sees = torch.ones(*[visited.shape[-1]] * 2, dtype=torch.bool, device=device).tril()
    sees = sees & visited[..., None] & visited[..., None, :]
    if restart is not None:
        number = restart.cumsum(-1)
        sees = sees & (number[..., None] == number[..., None, :])
    return Steps(token, visited, sees)


@dataclass(frozen=True)
class Unrolled:
    """What a mixer's scan does to what it is given, as matrices.

    Args:
        maps: matrices a path: one a channel, a head, ...
        steps: the steps of the paths.
        length: number of tokens.
        merge: what the mixer does with its paths: "sum", "mean" or "none".
        entries: the matrices begin to end - 1 in visiting order, (batch, paths, end - begin, steps, steps), [.., i, j] from
            step j to step i; what stands where a step sees nothing does not count.
    """

    maps: int
    steps: Steps
    length: int
    merge: str
    entries: Callable[[int, int], Tensor]

    def block(self, begin: int, end: int) -> Tensor:
        """The matrices begin to end - 1 in token order, (batch, paths, end - begin, length, length)."""
        return self._in_token_order(self.entries(begin, end).masked_fill(~self.steps.sees[:, :, None], 0))

    def token_sees(self) -> Tensor:
        """Which token can take anything from which on any path, (batch, length, length) bool."""
        return self._in_token_order(self.steps.sees[:, :, None]).any(1).squeeze(1)

    def _in_token_order(self, matrix: Tensor) -> Tensor:
        # Steps after a path's end go to a further row and column, which are then cut off.
        token = torch.where(self.steps.visited, self.steps.token, self.length)
        for axis in (-1, -2):
            shape = [*matrix.shape]
            index = token[:, :, None, None, :] if axis == -1 else token[:, :, None, :, None]
            shape[axis] = self.length + 1
            matrix = matrix.new_zeros(shape).scatter(axis, index.expand_as(matrix), matrix)
            matrix = matrix.narrow(axis, 0, self.length)
        return matrix
