"""A scan's order as a PyTorch operator: in a graph of symbolic sizes it is built when the graph runs, for the sizes it then has."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import UserError
from .grid import Grid
from .scan import Scan


@torch.library.custom_op("polymamba::scan_order", mutates_args=())
def scan_order(
    scan: str, paths: int, sizes: Sequence[int], extra: Sequence[int] | None, device: torch.device
) -> Tensor:
    """The token visited at each step, (paths, most steps) int32, -1 behind the end of a path.

    Args:
        scan: what `Scan.text` says.
        paths: as many as are expected.
        sizes, extra, device: as of Grid and Scan.order; extra may be None (AOTInductor's word for an empty list).

    Raises:
        UserError: a grid with another number of paths, or one that the scan does not walk.
    """
    walked = Scan.of_text(scan)
    _check(walked, paths, len(sizes))
    extra = tuple(extra or ())
    order = walked.order(Grid(tuple(sizes), extra), device)
    # Always a tensor of its own: the kept order is everybody's, and a graph may write into what an operator returned.
    return F.pad(order, (0, walked.most_steps(sizes, extra) - order.shape[1]), value=-1).clone()


@scan_order.register_fake
def _(scan, paths, sizes, extra, device):
    walked = Scan.of_text(scan)
    _check(walked, paths, len(sizes))
    return torch.empty((paths, walked.most_steps(sizes, extra or ())), dtype=torch.int32, device=device)


def _check(scan: Scan, paths: int, axes: int) -> None:
    if scan.paths(axes) != paths:
        raise UserError(
            "the scan has another number of paths on such grids",
            given=f"scan={scan}, {axes} axes: {scan.paths(axes)} paths", allowed=f"{paths} paths",
        )  # fmt: skip
