"""A few rows times a matrix on the CPU: memory and threads around cpu_kernels.py."""

from __future__ import annotations

import torch
from torch import Tensor

from ..lanes import WIDTH
from ..team import run_at
from .cpu_kernels import multiply_bfloat16, multiply_float32

# A matrix row is a multiple of so many elements.
MULTIPLE = {torch.float32: WIDTH, torch.bfloat16: 2 * WIDTH}
# Bytes of the matrix that a thread reads at a time, and from how many on several threads are worth waking.
ITEM_BYTES, SHARED_BYTES = 1 << 17, 1 << 18


def few_rows(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(..., inputs) float32 or bfloat16 times a contiguous (outputs, inputs) of the same dtype."""
    outputs, inputs = weight.shape
    half = weight.dtype == torch.bfloat16
    out = torch.empty((*x.shape[:-1], outputs), dtype=torch.float32)
    if half:
        rows = torch.empty((x.numel() // inputs, 2, inputs // 2), dtype=torch.float32)
        rows.copy_(x.reshape(-1, inputs // 2, 2).transpose(1, 2))
        bias = None if bias is None else bias.float()
    else:
        rows = x.contiguous()
    size = outputs * inputs * (2 if half else 4)
    each = outputs if size < SHARED_BYTES else max(1, ITEM_BYTES * outputs // size)
    items = -(-outputs // each)
    run_at(
        multiply_bfloat16 if half else multiply_float32, items,
        (rows.data_ptr(), weight.data_ptr(), 0 if bias is None else bias.data_ptr(), out.data_ptr(), x.numel() // inputs,
         inputs, outputs, each, items, 0),
    )  # fmt: skip
    return out.bfloat16() if half else out
