"""What a mixer needs to know of its scan on one grid: the order, and tables for scans that share the tokens out."""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from ..scans import Grid, Scan

CACHED_WALKS = 256


class Shares(NamedTuple):
    """Tables for paths that share the tokens out: path after path, each step of each path is a slot.

    tokens: (slots,) int64, the token in each slot (0 in a slot past the end of a short path).
    slot: (length,) int64, a slot of each token.
    met: (tokens,) int64, the tokens on several paths (class tokens), or None; meeting: (tokens, paths) int64, their slots.
    """

    tokens: Tensor
    slot: Tensor
    met: Tensor | None
    meeting: Tensor | None


class Walk(NamedTuple):
    """A scan on a grid.

    order: (paths, steps) int32; None: one path in the raster order.
    visits: steps over all paths.
    shares: for scans of several paths that put each grid token on one of them.
    """

    order: Tensor | None
    visits: int
    shares: Shares | None


@functools.lru_cache(maxsize=CACHED_WALKS)
def walk(scan: Scan, sizes: tuple[int, ...], extra: tuple[int, ...], device: torch.device) -> Walk:
    """The walk of a scan over a grid of these sizes with extra tokens at these positions; kept for the next call."""
    # A trace (torch.export) must not leave its fake tensors in the cache, nor inference mode its unusable ones.
    with _disable_current_modes(), torch.inference_mode(False):
        grid = Grid(sizes, extra)
        order = scan.order(grid, torch.device("cpu"))
        if order.shape[0] == 1 and torch.equal(order[0].long(), torch.arange(grid.length, device="cpu")):
            return Walk(None, grid.length, None)
        shares = _shares(order, grid.length) if order.shape[0] > 1 and scan.disjoint(len(sizes)) else None
        if shares is not None:
            shares = Shares(*(table if table is None else table.to(device) for table in shares))
        return Walk(scan.order(grid, device), int((order >= 0).sum()), shares)


def _shares(order: Tensor, length: int) -> Shares:
    flat = order.flatten().long()
    slots = torch.arange(flat.numel(), device="cpu")
    used = flat >= 0
    count = flat.new_zeros(length).index_add_(0, flat[used], torch.ones_like(flat[used]))
    slot = flat.new_zeros(length).index_copy_(0, flat[used], slots[used])
    met = (count > 1).nonzero().flatten()
    meeting = None
    if met.numel():
        meeting = torch.stack([slots[flat == token] for token in met])
    return Shares(flat.clamp_min(0), slot, met if met.numel() else None, meeting)
