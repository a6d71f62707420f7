"""What mixers of one parameter set share that walk along the paths of a scan."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..errors import UserError, check_choice
from ..ops.arguments import MERGES
from ..packing import has_padding, skip_padding
from ..scans import Grid, Scan
from ..scans import get as get_scan
from .walk import Walks, sizes_of


class PathMixer(nn.Module):
    """A mixer that visits its tokens in the order of a scan.

    Args:
        scan: a mode's name, several joined with "+", or a Scan.
        axes: number of grid axes, where the scan's number of paths depends on it.
        merge: "sum" or "mean" over the paths, or "none".
    """

    def __init__(self, scan: str | Scan, axes: int, merge: str):
        super().__init__()
        check_choice("merge", merge, MERGES)
        self.scan = get_scan(scan) if isinstance(scan, str) else scan
        self.paths, self.axes, self.merge = self.scan.paths(axes), axes, merge
        self._walks = Walks(self.scan, axes, type(self).__name__)

    def order(
        self, x: Tensor, grid: Grid | tuple[int, ...] | None, state: object | None, seq_idx: Tensor | None
    ) -> tuple[Tensor | None, bool]:
        """The token at each step of each path, and whether a state can be carried on (one path in raster order).

        Returns:
            ([batch,] paths, steps) int32, without the steps that land on padding; None for all tokens in raster order.

        Raises:
            UserError: a grid of another length or number of axes, a state where none can be carried.
        """
        order = self._walks.over(*self._walks.grid(x, grid), x.device).order
        causal = order is None
        if state is not None and not causal:
            raise UserError(
                "a state can only be carried along one path in raster order",
                given=f"scan={self.scan}",
                allowed='scan="raster"',
            )
        if seq_idx is not None and has_padding(seq_idx):
            order = skip_padding(order, seq_idx)
        return order, causal

    def _visits(self, grid: Grid | tuple[int, ...]) -> tuple[int, int]:
        """Tokens of a grid, and steps over all paths."""
        sizes, extra = sizes_of(grid, 0)
        return math.prod(sizes) + len(extra), self._walks.over(sizes, extra, torch.device("cpu")).visits

    def extra_repr(self) -> str:
        return f"scan={self.scan}, paths={self.paths}, merge={self.merge}"
