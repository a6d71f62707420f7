"""Angles that a sequence turns through step by step (Mamba-3, arXiv 2603.15569).

reference.py defines it, cpu.py (Numba) computes it fast, registration.py makes it a PyTorch operator.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..arguments import check_shape
from ..backends import resolve
from .reference import running_angle_reference
from .registration import running_angle_op

__all__ = ["running_angle", "running_angle_reference"]


def running_angle(
    increment: Tensor, restart: Tensor | None = None, initial: Tensor | None = None, backend: str = "auto"
) -> Tensor:
    """The sum of the increments so far, modulo a full turn: as exact after a million steps as after one.

    Args:
        increment: (batch, steps, ...), radians.
        restart: (batch, steps) bool, where the sum begins anew; None: nowhere.
        initial: (batch, ...), the angle before the first step; None: 0.
        backend: "auto", "reference", "cpu" or "gpu"; there is a kernel for float32 on a CPU, all else is the reference.

    Returns:
        (batch, steps, ...) in float32 at least, between 0 and a full turn.

    Raises:
        UserError: shapes that do not fit, a backend that cannot run.
    """
    batch, steps, *inner = increment.shape
    check_shape("restart", restart, (batch, steps), note="")
    check_shape("initial", initial, (batch, *inner), note="")
    name, _ = resolve(increment.device, increment.dtype, backend, (increment, initial))
    plain = all(t is None or t.dtype == torch.float32 for t in (increment, initial))
    if name != "cpu" or not plain or steps < 2 or not increment.numel():
        return running_angle_reference(increment, restart, initial)[0]
    return running_angle_op(increment, restart, initial, name)[0]
