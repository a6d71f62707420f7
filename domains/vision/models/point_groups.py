"""From a cloud of points to groups of neighbours: centres far from one another, what lies around each, a token for each."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....core.errors import UserError
from ....core.ranges import Positive, Size, checked
from ....core.scans.sets import cells, hilbert_key, order_by, z_key

ORDERS = ("hilbert", "trans_hilbert", "z", "trans_z")
NEAR_ORIGIN = 1e-3  # squared distance up to which the published kernel takes a point for padding


@torch.no_grad()
def farthest_points(points: Tensor, count: int, skip_origin: bool = False) -> Tensor:
    """Points far from one another: the first, then each time the one farthest from all taken so far, (batch, count) int64.

    Args:
        points: (batch, points, axes).
        skip_origin: never take points within 0.03 of the origin, as the kernel of PointNet++'s usual code.
    """
    rows = torch.arange(len(points), device=points.device)
    far = points.new_full(points.shape[:2], torch.inf)
    last, taken = rows.new_zeros(len(points)), []
    for _ in range(count):
        taken.append(last)
        far = torch.minimum(far, (points - points[rows, last][:, None]).square().sum(-1))
        last = (far.masked_fill(points.square().sum(-1) <= NEAR_ORIGIN, -1) if skip_origin else far).argmax(1)
    return torch.stack(taken, 1)


@torch.no_grad()
def nearest_points(points: Tensor, centres: Tensor, count: int) -> Tensor:
    """The `count` points nearest to each centre, the nearest first: (batch, centres, count) int64."""
    distances = (centres[:, :, None] - points[:, None]).square().sum(-1)
    return distances.topk(count, largest=False, sorted=True).indices


@torch.no_grad()
def serialise(points: Tensor, orders: tuple[str, ...], cell: float, together: bool = False) -> Tensor:
    """The points of each cloud in the order of space-filling curves over cells of that side: (batch, orders, points) int64.

    Args:
        points: (batch, points, 3).
        orders: names of ORDERS; "trans_…": the curve with its first two axes exchanged.
        together: curves as deep as the batch's widest cloud needs, as in the published code; else as deep as each cloud's own, so
            that a cloud's order does not depend on the others.
    """
    cell_of = cells(points, cell)
    deep = [max(int(widest).bit_length(), 1) for widest in cell_of.amax((1, 2)).tolist()]
    if together:
        deep = [max(deep, default=1)] * len(deep)
    found = torch.empty(len(points), len(orders), points.shape[1], dtype=torch.long, device=points.device)
    for bits in set(deep):
        rows = torch.tensor([number for number, each in enumerate(deep) if each == bits], device=points.device)
        found[rows] = order_by(*(_key(order, cell_of[rows], bits) for order in orders)).long()
    return found


def _key(order: str, cell: Tensor, bits: int) -> Tensor:
    if order.startswith("trans_"):
        cell = cell[..., [1, 0, *range(2, cell.shape[-1])]]
    return hilbert_key(cell, bits) if order.endswith("hilbert") else z_key(cell, bits)


class Groups(nn.Module):
    """Cuts clouds into groups that may overlap; has no parameters.

    Args:
        num_group: of each cloud. group_size: points of each.
        skip_origin: see `farthest_points`.
    """

    def __init__(self, num_group: int, group_size: int, skip_origin: bool = False):
        super().__init__()
        self.num_group, self.group_size, self.skip_origin = num_group, group_size, skip_origin

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, points, 3) to groups (batch, groups, size, 3), counted from their centres, and these (batch, groups, 3).

        Raises:
            UserError: clouds of fewer points than a group or than groups.
        """
        least = max(self.num_group, self.group_size)
        if points.dim() != 3 or points.shape[2] != 3 or points.shape[1] < least:
            raise UserError(
                "these are no clouds for this model", given=tuple(points.shape), allowed=f"(batch, {least} or more, 3)"
            )
        rows = torch.arange(len(points), device=points.device)
        centres = points[rows[:, None], farthest_points(points, self.num_group, self.skip_origin)]
        near = points[rows[:, None, None], nearest_points(points, centres, self.group_size)]
        return near - centres[:, :, None], centres


class GroupEncoder(nn.Module):
    """A small PointNet: a token for each group of points (PointMamba's `encoder`, with its parameter names).

    Args:
        channels: of a token.
        width: channels after the first layer; the second has twice, the third four times as many.
    """

    @checked
    def __init__(self, channels: Size, width: Size = 128, device=None, dtype=None):
        super().__init__()
        make = {"device": device, "dtype": dtype}

        def pair(sizes: tuple[int, int, int]) -> nn.Sequential:
            first, middle, last = sizes
            norm = nn.BatchNorm1d(middle, **make)
            return nn.Sequential(
                nn.Conv1d(first, middle, 1, **make), norm, nn.ReLU(), nn.Conv1d(middle, last, 1, **make)
            )

        self.first_conv = pair((3, width, 2 * width))
        self.second_conv = pair((4 * width, 4 * width, channels))

    def forward(self, groups: Tensor) -> Tensor:
        """(batch, groups, size, 3) to (batch, groups, channels)."""
        size = groups.shape[2]
        first, norm, act, second = self.first_conv
        x = _pointwise(second, act(norm(_pointwise(first, groups.flatten(0, 2)))))
        first, norm, act, second = self.second_conv
        # What belongs to a whole group is projected once, not once a point.
        whole = x.unflatten(0, (-1, size)).amax(1)
        weight, width = first.weight[..., 0], x.shape[1]
        x = F.linear(x, weight[:, width:]) + F.linear(whole, weight[:, :width], first.bias).repeat_interleave(size, 0)
        x = _pointwise(second, act(norm(x)))
        return x.unflatten(0, (*groups.shape[:2], size)).amax(2)

    def flops(self, groups: int, size: int) -> int:
        """Of one cloud (a multiply-add is two)."""
        once = self.second_conv[0].weight.shape[0] * self.first_conv[3].weight.shape[0]
        each = (
            sum(part.weight.numel() for pair in (self.first_conv, self.second_conv) for part in (pair[0], pair[3]))
            - once
        )
        return 2 * groups * (size * each + once)


def _pointwise(convolution: nn.Conv1d, rows: Tensor) -> Tensor:
    """A convolution of width 1 over (rows, channels)."""
    return F.linear(rows, convolution.weight[..., 0], convolution.bias)


def check_orders(orders: tuple[str, ...], cell: Positive) -> tuple[str, ...]:
    """The orders; UserError where there is none or an unknown one."""
    if not orders or any(order not in ORDERS for order in orders):
        raise UserError("there are no such orders of points", given=list(orders), allowed=list(ORDERS))
    if not cell > 0:
        raise UserError("cells have a side above 0", given=cell)
    return tuple(orders)
