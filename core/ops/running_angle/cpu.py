"""The running angle on the CPU: memory and threads around cpu_kernels.py."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..cpu.calls import address, record, run, whole
from ..cpu.lanes import WIDTH
from ..cpu.memory import empty
from .cpu_kernels import angle_kernel, since_kernel


def forward(increment: Tensor, restart: Tensor | None, initial: Tensor | None) -> Tensor:
    """(batch, steps, ...)."""
    out = empty(*increment.shape)
    _run(angle_kernel, increment, restart, out, whole(initial))
    return out


def backward(grad: Tensor, restart: Tensor | None) -> tuple[Tensor, Tensor]:
    """Gradients of the increments, each the sum of what comes until the next restart, and of the angle before the first."""
    of_increment, of_initial = empty(*grad.shape), empty(grad.shape[0], *grad.shape[2:])
    _run(since_kernel, grad, restart, of_increment, of_initial)
    return of_increment, of_initial


def _run(kernel, given: Tensor, restart: Tensor | None, out: Tensor, initial: Tensor | None) -> None:
    batch, steps, *inner = given.shape
    count, given = math.prod(inner), whole(given)
    goes_on = None if restart is None else whole((~restart).to(torch.float32))
    blocks = -(-count // WIDTH)
    run(kernel, batch * blocks, record(
        kernel, given=address("given", given, tuple(out.shape)), out=address("out", out, tuple(out.shape)),
        initial=address("initial", initial, (batch, *inner)), goes_on=address("goes_on", goes_on, (batch, steps)),
        steps=steps, count=count, blocks=blocks, items=batch * blocks,
    ))  # fmt: skip
