"""The gated sum as PyTorch operators: forward and backward, with shape functions.

A backend module offers

    forward(y, z, z_scale, y_scale) -> out
    backward(grad, y, z, z_scale, y_scale) -> gradients of y, z and, where they are given, of the scales, contiguous

of float32 tensors, shaped as gated_sum says. Operators here return a state too; this one's is empty.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..registration import backend_module, register
from .reference import gated_sum_reference


@torch.library.custom_op("polymamba::gated_sum", mutates_args=())
def _forward(
    y: Tensor, z: Tensor, z_scale: Tensor | None, y_scale: Tensor | None, backend: str
) -> tuple[Tensor, Tensor]:
    return backend_module(backend, __package__).forward(y, z, z_scale, y_scale), y.new_empty(0)


@_forward.register_fake
def _(y, z, z_scale, y_scale, backend):
    return y.new_empty(*y.shape[:3], y.shape[4]), y.new_empty(0)


@torch.library.custom_op("polymamba::gated_sum_backward", mutates_args=())
def _backward(
    grad_out: Tensor, grad_state: Tensor | None, y: Tensor, z: Tensor, z_scale: Tensor | None, y_scale: Tensor | None,
    backend: str,
) -> list[Tensor]:  # fmt: skip
    return list(backend_module(backend, __package__).backward(grad_out, y, z, z_scale, y_scale))


@_backward.register_fake
def _(grad_out, grad_state, y, z, z_scale, y_scale, backend):
    return [t.new_empty(t.shape) for t in (y, z, z_scale, y_scale) if t is not None]


gated_sum_op = register(_forward, _backward, gated_sum_reference, ("y", "z", "z_scale", "y_scale"))
