"""What mixers of one parameter set share that walk along the paths of a scan."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..errors import UserError, closest
from ..packing import has_padding, skip_padding
from ..scans import Grid, Scan
from ..scans import get as get_scan
from .walk import Walk, walk

MERGES = ("sum", "mean", "none")


class PathMixer(nn.Module):
    """A mixer that visits its tokens in the order of a scan.

    Args:
        scan: a mode's name, several joined with "+", or a Scan.
        axes: number of grid axes, where the scan's number of paths depends on it.
        merge: "sum" or "mean" over the paths, or "none".
    """

    def __init__(self, scan: str | Scan, axes: int, merge: str):
        super().__init__()
        if merge not in MERGES:
            near = closest(merge, MERGES)
            raise UserError(
                f"unknown merge {merge!r}", given=merge, allowed=MERGES, do=f"merge={near}" if near else None
            )
        self.scan = get_scan(scan) if isinstance(scan, str) else scan
        self.paths, self.axes, self.merge = self.scan.paths(axes), axes, merge
        self._raster = self.scan == get_scan("raster")

    def order(
        self, x: Tensor, grid: Grid | tuple[int, ...] | None, state: object | None, seq_idx: Tensor | None
    ) -> tuple[Tensor | None, bool]:
        """The token at each step of each path, and whether a state can be carried on (one path in raster order).

        Returns:
            ([batch,] paths, steps) int32, without the steps that land on padding; None for all tokens in raster order.

        Raises:
            UserError: a grid of another length or number of axes, a state where none can be carried.
        """
        length = x.shape[1]
        sizes, extra = sizes_of(grid, length)
        if math.prod(sizes) + len(extra) != length:
            raise UserError(
                "the grid does not fit the sequence", given=f"grid {sizes} with {len(extra)} extra tokens, {length} tokens",
                allowed=f"{math.prod(sizes) + len(extra)} tokens",
            )  # fmt: skip
        order = None if self._raster else self._walk(sizes, extra, x.device).order
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

    # Evaluated while tracing, not traced: the tables become constants of the graph.
    @torch.compiler.assume_constant_result
    def _walk(self, sizes: tuple[int, ...], extra: tuple[int, ...], device: torch.device) -> Walk:
        way = walk(self.scan, sizes, extra, device)
        paths = 1 if way.order is None else way.order.shape[0]
        if paths != self.paths:
            raise UserError(
                f"this mixer was made for grids of {self.axes} axes", given=f"grid {sizes}: {paths} paths",
                allowed=f"{self.axes} axes: {self.paths} paths", do=f"{type(self).__name__}(..., axes={len(sizes)})",
            )  # fmt: skip
        return way

    def _visits(self, grid: Grid | tuple[int, ...]) -> tuple[int, int]:
        """Tokens of a grid, and steps over all paths."""
        sizes, extra = sizes_of(grid, 0)
        return math.prod(sizes) + len(extra), self._walk(sizes, extra, torch.device("cpu")).visits

    def extra_repr(self) -> str:
        return f"scan={self.scan}, paths={self.paths}, merge={self.merge}"


def sizes_of(grid: Grid | tuple[int, ...] | None, length: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Sizes and extra positions of a grid, plain numbers also while tracing; (length,) where there is none."""
    if grid is None:
        return (int(length),), ()
    if isinstance(grid, Grid):
        return grid.sizes, grid.extra
    return tuple(grid), ()
