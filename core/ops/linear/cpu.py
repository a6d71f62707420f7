"""A few rows times a matrix on the CPU: memory and threads around cpu_kernels.py."""

from __future__ import annotations

import torch
from torch import Tensor

from ..dots import team_of, tiers
from ..team import run_at
from .cpu_kernels import multiply


def few_rows(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(..., inputs) float32 or bfloat16 times a contiguous (outputs, inputs) of the same dtype."""
    outputs, inputs = weight.shape
    half = weight.dtype == torch.bfloat16
    out = torch.empty((*x.shape[:-1], outputs), dtype=torch.float32)
    rows = x.float().contiguous()
    size = outputs * inputs * (2 if half else 4)
    team = team_of(size, torch.get_num_threads())
    run_at(
        multiply, team,
        (rows.data_ptr(), weight.data_ptr(), 0 if bias is None else bias.data_ptr(), out.data_ptr(), x.numel() // inputs,
         inputs, outputs, int(half), team, tiers(size, team), 0),
    )  # fmt: skip
    return out.bfloat16() if half else out
