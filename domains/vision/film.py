"""Videos as strips of some of their frames, and what belongs to them as strips of the same moments."""

from __future__ import annotations

import torch
from torch import Tensor

from ...core.scans import Grid

SHOWN = 4  # frames of a strip


def moments(count: int) -> list[int]:
    """Which of `count` frames are shown: up to four, the first and the last among them."""
    return torch.linspace(0, count - 1, min(SHOWN, count)).round().long().tolist()


def strip(videos: Tensor) -> Tensor:
    """(batch, channels, frames, height, width) to frames beside one another, (batch, channels, height, shown * width)."""
    return torch.cat([videos[:, :, moment] for moment in moments(videos.shape[2])], -1)


def strip_of_tokens(weights: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
    """Weights (batch, tokens) of a grid of (moments, rows, columns) as those of one of (rows, shown * columns)."""
    kept = [token for token in range(grid.length) if token not in grid.extra]
    each = weights[:, kept].unflatten(1, grid.sizes)
    shown = torch.cat([each[:, moment] for moment in moments(grid.sizes[0])], -1)
    return shown.flatten(1), Grid(tuple(shown.shape[1:]))
