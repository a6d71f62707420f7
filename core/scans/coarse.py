"""The paths of a scan over a coarser map, each token of which stands for the corner of a square of the grid's."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from .cache import OrderCache
from .scan import Part, Scan

COARSE = OrderCache(64)


def coarse_paths(
    scan: Scan, sizes: Sequence[int], step: int = 2, device: torch.device | str | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The paths after a scan's first, one after the other over the map of every step-th token along each axis of a grid.

    Args:
        scan: tokens of its paths that are not on the coarse map are left out.
        sizes: of the grid, without extra tokens; the map's are divided by `step`, rounded up.

    Returns:
        int64 (steps,), the map's token at each step; int64 (paths - 1, tokens), the step at which each path visits each of the
        map's tokens, `steps` where it does not.
    """
    return _coarse(scan.parts, tuple(map(int, sizes)), step, torch.device("cpu" if device is None else device))


def _coarse(
    parts: tuple[Part, ...], sizes: tuple[int, ...], step: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    return COARSE.get((parts, sizes, step, device), lambda: _build(Scan(parts), sizes, step, device))


# As for Scan.order: a compiler traces the tables as constants of the graph.
_coarse._dynamo_marked_constant = True


def _build(scan: Scan, sizes: tuple[int, ...], step: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    number = torch.full(sizes, -1, dtype=torch.long)
    corners = number[tuple(slice(None, None, step) for _ in sizes)]
    tokens = math.prod(corners.shape)
    corners.copy_(torch.arange(tokens).reshape(corners.shape))
    # A further entry for the -1 behind the end of a short path.
    number = torch.cat([number.flatten(), torch.tensor([-1])])
    walked, begin = [], 0
    found = scan.order(sizes)[1:].long()
    visited = torch.full((len(found), tokens), -1)
    for path, order in enumerate(found):
        path_tokens = number[order]
        path_tokens = path_tokens[path_tokens >= 0]
        visited[path, path_tokens] = begin + torch.arange(len(path_tokens))
        walked.append(path_tokens)
        begin += len(path_tokens)
    walked = torch.cat(walked) if walked else torch.empty(0, dtype=torch.long)
    return walked.to(device), torch.where(visited < 0, begin, visited).to(device)
