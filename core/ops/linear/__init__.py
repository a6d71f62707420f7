"""The product of a few rows with a matrix, as fast as the matrix can be read: what decoding token by token spends its time on.

Many rows, other devices and everything that needs a gradient are PyTorch's own `F.linear`, which is also the definition.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module

import torch
from torch import Tensor
from torch.nn import functional as F

from ..one_token import MOST_ROWS, at_once


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
        plain = weight.is_contiguous() and (bias is None or (bias.dtype == x.dtype and bias.is_contiguous()))
        if plain and weight.dim() == 2 and x.shape[-1] == weight.shape[1]:
            return _cpu().few_rows(x, weight, bias)
    return F.linear(x, weight, bias)


@cache
def _cpu():
    return import_module(".cpu", __package__)
