"""A series as trend and rest, by a moving average (Autoformer, arXiv 2106.13008, section 3.1; DLinear, arXiv 2205.13504)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ....core.errors import UserError


def decompose(x: Tensor, kernel_size: int = 25) -> tuple[Tensor, Tensor]:
    """The moving average over an odd number of steps, the end values repeated beyond the ends, and what it leaves.

    Args:
        x: (batch, length, variables).

    Returns:
        rest, trend: both shaped like x; their sum is x.
    """
    if kernel_size % 2 == 0:
        raise UserError(
            "a moving average is centred on a step", given=f"kernel_size={kernel_size}", allowed="1, 3, 5, ..."
        )
    reach = kernel_size // 2
    wide = torch.cat([x[:, :1].expand(-1, reach, -1), x, x[:, -1:].expand(-1, reach, -1)], 1)
    trend = F.avg_pool1d(wide.transpose(1, 2), kernel_size, 1).transpose(1, 2)
    return x - trend, trend
