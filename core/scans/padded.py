"""Scans that divide the grid, walked over a grid that is filled up to whole windows or steps, as some published models do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from .cache import OrderCache
from .path import numbered
from .scan import Part, Scan

PADDED = OrderCache(64)


def padded_order(
    scan: Scan, sizes: Sequence[int], device: torch.device | str | None = None
) -> tuple[torch.Tensor, int]:
    """The order of a scan over a grid that each of its parts fills up, at the far end of each axis.

    Args:
        scan: its parts that divide the grid (`local`, `skip`) fill it up to a multiple of their window or step.
        sizes: of the grid, without extra tokens.

    Returns:
        int32 (paths, steps), as Scan.order, where numbers from the grid's number of tokens on stand for padding, each at most
        once on a path; and how many such tokens there have to be.
    """
    return _padded(scan.parts, tuple(map(int, sizes)), torch.device("cpu" if device is None else device))


def _padded(parts: tuple[Part, ...], sizes: tuple[int, ...], device: torch.device) -> tuple[torch.Tensor, int]:
    return PADDED.get((parts, sizes, device), lambda: _build(parts, sizes, device))


# As for Scan.order: a compiler traces the order as a constant of the graph.
_padded._dynamo_marked_constant = True


def _build(parts: Sequence[Part], sizes: tuple[int, ...], device: torch.device) -> tuple[torch.Tensor, int]:
    tokens, rows = int(np.prod(sizes)), []
    for part in parts:
        wide = tuple(-(-size // side) * side for size, side in zip(sizes, part.cell(len(sizes)), strict=True))
        inside = np.full(wide, -1, dtype=np.int64)
        inside[tuple(map(slice, sizes))] = numbered(sizes)
        for path in part.paths(wide):
            row = inside.ravel()[path.order[::-1] if path.backward else path.order]
            row[row < 0] = tokens + np.arange((row < 0).sum())
            rows.append(row)
    order = np.full((len(rows), max(map(len, rows))), -1, dtype=np.int32)
    for filled, row in zip(order, rows, strict=True):
        filled[: len(row)] = row
    return torch.from_numpy(order).to(device), max(int(order.max(initial=tokens - 1)) + 1 - tokens, 0)
