"""The direction of each step along the paths of any scan over a 2-D grid."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ..errors import UserError
from .cache import OrderCache
from .scan import Part, Scan

MOVES = OrderCache(64)


def moves(
    scan: Scan, sizes: Sequence[int], device: torch.device | str | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """PlainMamba's directions along the paths of any scan over a 2-D grid, by token.

    Args:
        scan: whose paths visit all tokens.
        sizes: (height, width), without extra tokens.

    Returns:
        int64, (paths, tokens) both: the direction of the step that leads to a token, as `directions` numbers them, 0 also where it
        leads to no neighbour; and the step at which it is visited.
    """
    return _moves(scan.parts, tuple(map(int, sizes)), torch.device("cpu" if device is None else device))


def _moves(parts: tuple[Part, ...], sizes: tuple[int, ...], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    def build() -> tuple[torch.Tensor, torch.Tensor]:
        order = Scan(parts).order(sizes).long()
        if order.shape[1] != math.prod(sizes) or (order < 0).any():
            raise UserError("directions need paths that visit all tokens", given=f"scan={Scan(parts)}")
        place = torch.stack([order // max(sizes[1], 1), order % max(sizes[1], 1)])
        rows, columns = place.diff(dim=2)
        near = rows.abs() + columns.abs() == 1
        move = torch.where(rows == 0, torch.where(columns > 0, 1, 2), torch.where(rows < 0, 3, 4)) * near
        move = torch.cat([torch.zeros_like(order[:, :1]), move], 1)
        step = torch.arange(order.shape[1]).expand_as(order)
        by_token = (torch.zeros_like(order).scatter(1, order, each).to(device) for each in (move, step))
        return tuple(by_token)

    return MOVES.get((parts, sizes, device), build)


_moves._dynamo_marked_constant = True
