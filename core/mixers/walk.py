"""What a mixer needs to know of its scan on one grid: the order, and tables for scans that share the tokens out."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import UserError
from ..scans import Grid, Scan
from ..scans.cache import ordinary_tensors
from ..scans.grid import symbolic
from ..scans.operator import scan_order

CACHED_WALKS = 256


class Shares(NamedTuple):
    """Tables for paths that share the tokens out: path after path, each step of each path is a slot.

    tokens: (paths, steps) int64, the token in each slot (0 in a slot past the end of a short path).
    slot: (length,) int64, a slot of each token.
    met: (tokens,) int64, the tokens on several paths (class tokens), or None; meeting: (tokens, paths) int64, their slots.
    """

    tokens: Tensor
    slot: Tensor
    met: Tensor | None
    meeting: Tensor | None

    def take(self, x: Tensor) -> Tensor:
        """What each path visits, in its order: (batch, paths, steps, channels) of (batch, length, channels)."""
        x = x.index_select(1, self.tokens.flatten())
        return x.unflatten(1, (self.tokens.shape[0], x.shape[1] // self.tokens.shape[0]))

    def put_back(self, y: Tensor, merge: str) -> Tensor:
        """Of (batch, paths, steps, channels) each token's own, (batch, length, channels); what several paths say is merged."""
        y = y.flatten(1, 2)
        tokens = y.index_select(1, self.slot)
        if self.met is not None:
            met = y.index_select(1, self.meeting.flatten()).unflatten(1, self.meeting.shape).sum(2)
            tokens = tokens.index_copy(1, self.met, met)
        return tokens / self.tokens.shape[0] if merge == "mean" else tokens


class Walk(NamedTuple):
    """A scan on a grid.

    order: (paths, steps) int32; None: one path in the raster order.
    visits: steps over all paths.
    shares: for scans of several paths that put each grid token on one of them.
    """

    order: Tensor | None
    visits: int
    shares: Shares | None


class Walks:
    """The walks of a mixer's scan.

    Args:
        scan: of the mixer. axes: number of grid axes that it was made for. mixer: what to call it in a message.
    """

    def __init__(self, scan: Scan, axes: int, mixer: str):
        self.scan, self.axes, self.paths, self.mixer = scan, axes, scan.paths(axes), mixer
        self.text, self.raster = scan.text, scan.is_raster
        self.disjoint = self.paths > 1 and scan.disjoint(axes)

    def grid(self, x: Tensor, grid: Grid | tuple[int, ...] | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Sizes and extra positions of the grid of (batch, length, channels) tokens; UserError where it does not fit."""
        sizes, extra = sizes_of(grid, x.shape[1])
        if grid is not None and math.prod(sizes) + len(extra) != x.shape[1]:
            raise UserError(
                "the grid does not fit the sequence",
                given=f"grid {sizes} with {len(extra)} extra tokens, {x.shape[1]} tokens",
                allowed=f"{math.prod(sizes) + len(extra)} tokens",
            )
        return sizes, extra

    def over(self, sizes: tuple[int, ...], extra: tuple[int, ...], device: torch.device) -> Walk:
        """The walk over one grid; in a graph for any size, made when the graph runs.

        Raises:
            UserError: a grid with another number of paths than the mixer was made for.
        """
        if self.raster:
            return Walk(None, math.prod(sizes) + len(extra), None)
        if symbolic((*sizes, *extra)):
            order = scan_order(self.text, self.paths, sizes, extra, device)
            shares = _shares(order, math.prod(sizes) + len(extra), extra) if self.disjoint else None
            return Walk(order, order.numel(), shares)
        # Under torch.jit.trace a tensor's sizes are tensors: the trace is for these sizes, as PyTorch's warning says.
        sizes, extra = tuple(map(int, sizes)), tuple(map(int, extra))
        way = walk(self.scan, sizes, extra, device)
        paths = 1 if way.order is None else way.order.shape[0]
        if paths != self.paths:
            raise UserError(
                f"this mixer was made for grids of {self.axes} axes", given=f"grid {sizes}: {paths} paths",
                allowed=f"{self.axes} axes: {self.paths} paths", do=f"{self.mixer}(..., axes={len(sizes)})",
            )  # fmt: skip
        return way


def sizes_of(grid: Grid | tuple[int, ...] | None, length: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Sizes and extra positions of a grid; (length,) where there is none."""
    if grid is None:
        return (length,), ()
    if isinstance(grid, Grid):
        return grid.sizes, grid.extra
    return tuple(grid), ()


@functools.lru_cache(maxsize=CACHED_WALKS)
def walk(scan: Scan, sizes: tuple[int, ...], extra: tuple[int, ...], device: torch.device) -> Walk:
    """The walk of a scan over a grid of these sizes with extra tokens at these positions; kept for the next call."""
    with ordinary_tensors():
        grid = Grid(sizes, extra)
        order = scan.order(grid, torch.device("cpu"))
        if order.shape[0] == 1 and torch.equal(order[0].long(), torch.arange(grid.length, device="cpu")):
            return Walk(None, grid.length, None)
        shares = _shares(order, grid.length, grid.extra) if order.shape[0] > 1 and scan.disjoint(len(sizes)) else None
        if shares is not None:
            shares = Shares(*(table if table is None else table.to(device) for table in shares))
        return Walk(scan.order(grid, device), int((order >= 0).sum()), shares)


def _shares(order: Tensor, length: int, extra: Sequence[int]) -> Shares:
    (paths, steps), device = order.shape, order.device
    flat = order.flatten().long()
    slots = torch.arange(paths * steps, device=device)
    slot = torch.zeros(length + 1, dtype=torch.long, device=device)
    slot = slot.scatter(0, torch.where(flat >= 0, flat, length), slots)[:length]
    if not extra:
        return Shares(order.long().clamp_min(0), slot, None, None)
    met = torch.cat([torch.full((1,), position, dtype=torch.long, device=device) for position in extra])
    meeting = (order == met[:, None, None]).int().argmax(2) + steps * torch.arange(paths, device=device)
    return Shares(order.long().clamp_min(0), slot, met, meeting)
