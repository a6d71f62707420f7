"""Checking an order before kernels that trust it follow it."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError


def visits(order: Tensor | None, length: int, paths: int) -> tuple[Tensor, bool]:
    """Whether each path visits every token, (paths,) int32, and whether all do.

    Args:
        order: (batch or 1, paths, steps), integer, or None for the raster order. Kernels read it as int32: only what has
            been checked fits.

    Raises:
        UserError: a step outside the tokens, a token visited twice by one path, a step after the path's end.
    """
    covers = np.ones(paths, np.int32)
    if order is None:
        return torch.from_numpy(covers), True
    order = order if order.dtype == torch.int32 else order.long()
    fault, row, path, step = _checker()(order.numpy(), length, covers)
    if fault:
        value = int(order[row, path, step])
        problem = ("leaves the tokens", "visits a token twice", "goes on after its end (-1)")[fault - 1]
        raise UserError(
            f"the order {problem}", given=f"token {value} at step {step} of path {path} (batch row {row})",
            allowed=f"tokens 0 to {length - 1}, each at most once a path; -1 only at the end of a path",
        )  # fmt: skip
    return torch.from_numpy(covers), row == 0


@functools.cache
def _checker():
    import numba  # only where an order lies on the CPU: the GPU kernels run without it

    from .cpu.team import kept_on_disk

    kinds = [f"({kind}[:,:,:], int64, int32[:])" for kind in ("int32", "int64")]
    return kept_on_disk(__file__, lambda: numba.njit(kinds, cache=True)(_check))


def _check(order, length, covers):
    """A fault and where it is; without one, how often a path leaves tokens out."""
    rows, paths, steps = order.shape
    left_out = 0
    seen = np.zeros(length, np.int64)
    for row in range(rows):
        for path in range(paths):
            mark, count = row * paths + path + 1, 0
            for step in range(steps):
                token = order[row, path, step]
                if token < -1 or token >= length:
                    return 1, row, path, step
                if token == -1:
                    continue
                if count != step:
                    return 3, row, path, step
                if seen[token] == mark:
                    return 2, row, path, step
                seen[token] = mark
                count += 1
            if count != length:
                covers[path] = 0
                left_out += 1
    return 0, left_out, 0, 0
