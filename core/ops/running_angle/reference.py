"""The running angle in plain PyTorch: its definition, in float64."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..transforms import watched

FULL_TURN = 2 * math.pi


def running_angle_reference(increment: Tensor, restart: Tensor | None, initial: Tensor | None) -> tuple[Tensor, Tensor]:
    """Arguments as of running_angle; also an empty tensor in the place of a state."""
    return _angles(increment, restart, initial), increment.new_empty(0)


def _angles(increment: Tensor, restart: Tensor | None, initial: Tensor | None) -> Tensor:
    kind = torch.promote_types(increment.dtype, torch.float32)
    increment = increment.to(torch.float32 if increment.device.type == "mps" else torch.float64)
    before = torch.zeros_like(increment[:, :1]) if initial is None else initial[:, None].to(increment.dtype)
    if increment.shape[1] == 1 and restart is None:
        return (before + increment).remainder(FULL_TURN).to(kind)
    if restart is None:
        return (increment.cumsum(1) + before).remainder(FULL_TURN).to(kind)
    step = torch.arange(restart.shape[1], device=restart.device).expand_as(restart)
    start = torch.where(restart, step, -1).cummax(1).values
    start = start.reshape(*start.shape, *(1,) * (increment.dim() - 2))
    if torch.compiler.is_compiling():
        # A graph for every length; but what is not finite goes on behind a restart.
        total = increment.cumsum(1)
        total = total - torch.where(
            start >= 0, (total - increment).gather(1, start.clamp_min(0).expand_as(increment)), 0
        )
    else:
        total = _sum_since(increment, start.clamp_min(0))
    return (total + torch.where(start >= 0, 0, before)).remainder(FULL_TURN).to(kind)


def _sum_since(values: Tensor, start: Tensor) -> Tensor:
    """Running sums of (batch, steps, ...) from step `start` (batch, steps, 1, ...) on, in doubled reaches.

    Nothing before the start is added, not even as something that is taken away again: it may be NaN, in the gradient too.
    """
    reach, step = 1, torch.arange(values.shape[1], device=values.device).view(1, -1, *(1,) * (values.dim() - 2))
    while reach < values.shape[1]:
        within = step - reach >= start
        if values.device.type == "cpu" and not watched() and not within.any():
            break
        values = values + torch.where(within, values.roll(reach, 1), 0)
        reach *= 2
    return values
