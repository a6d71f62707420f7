"""The running angle as PyTorch operators: forward and backward, with shape functions.

A backend module offers

    forward(increment, restart, initial) -> angles
    backward(grad, restart) -> gradients of the increments and of the angle before them, contiguous

of float32 tensors, shaped as running_angle says. Operators here return a state too; this one's is empty.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..registration import backend_module, register
from .reference import running_angle_reference


@torch.library.custom_op("polymamba::running_angle", mutates_args=())
def _forward(increment: Tensor, restart: Tensor | None, initial: Tensor | None, backend: str) -> tuple[Tensor, Tensor]:
    angles = backend_module(backend, __package__).forward(increment, restart, initial)
    return angles, increment.new_empty(0)


@_forward.register_fake
def _(increment, restart, initial, backend):
    return increment.new_empty(increment.shape), increment.new_empty(0)


@torch.library.custom_op("polymamba::running_angle_backward", mutates_args=())
def _backward(
    grad_out: Tensor, grad_state: Tensor | None, increment: Tensor, restart: Tensor | None, initial: Tensor | None,
    backend: str,
) -> list[Tensor]:  # fmt: skip
    of_increment, of_initial = backend_module(backend, __package__).backward(grad_out, restart)
    return [of_increment] if initial is None else [of_increment, of_initial]


@_backward.register_fake
def _(grad_out, grad_state, increment, restart, initial, backend):
    return [t.new_empty(t.shape) for t in (increment, initial) if t is not None]


running_angle_op = register(_forward, _backward, running_angle_reference, ("increment", "initial"))
