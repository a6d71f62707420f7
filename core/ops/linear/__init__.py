"""The product of a few rows with a matrix, as fast as the matrix can be read: what decoding token by token spends its time on.

Many rows, other devices and everything that needs a gradient are PyTorch's own `F.linear`, which is also the definition.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module

import torch
from torch import Tensor
from torch.nn import functional as F

from ..one_token import at_once

# From more rows than this on, PyTorch's blocked matrix product is faster.
MOST_ROWS = 4


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x weight^T + bias.

    Args:
        x: (..., inputs).
        weight: (outputs, inputs).
        bias: (outputs,).

    Returns:
        (..., outputs), in x's dtype; sums are in float32.
    """
    few = 0 < x.numel() <= MOST_ROWS * weight.shape[1] and x.dtype in (torch.float32, torch.bfloat16)
    if few and x.dtype == weight.dtype and at_once(x) and not torch.is_autocast_enabled("cpu"):
        cpu = _cpu()
        if weight.shape[1] % cpu.MULTIPLE[x.dtype] == 0 and weight.is_contiguous() and x.shape[-1] == weight.shape[1]:
            return cpu.few_rows(x, weight, bias)
    return F.linear(x, weight, bias)


@cache
def _cpu():
    return import_module(".cpu", __package__)
