"""A few rows times a matrix on the CPU: memory and threads around cpu_kernels.py."""

from __future__ import annotations

import torch
from torch import Tensor

from ..cpu.calls import address, addresses, record, run, whole
from ..cpu.dots import team_of, tiers
from ..cpu.memory import empty
from .cpu_kernels import multiply


def few_rows(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor | None:
    """(..., inputs) float32 or bfloat16 times (outputs, inputs) of the same dtype; None where the kernel cannot read them."""
    outputs, inputs = weight.shape
    count, half = x.numel() // inputs, weight.dtype == torch.bfloat16
    made, given = empty(*x.shape[:-1], outputs), whole(x)
    size = outputs * inputs * (2 if half else 4)
    team = team_of(size, torch.get_num_threads())
    read = addresses(weight=(weight, (outputs, inputs), x.dtype), bias=(bias, (outputs,), x.dtype))
    if read is None:
        return None
    told = record(
        multiply, **read, x=address("x", given, x.shape), out=address("out", made, made.shape), rows=count,
        inputs=inputs, outputs=outputs, half=half, team=team, tiers=tiers(size, team),
    )  # fmt: skip
    run(multiply, team, told)
    return made.to(x.dtype)
