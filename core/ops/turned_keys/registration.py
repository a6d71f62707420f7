"""Turned keys as PyTorch operators: forward and backward, with shape functions.

A backend module offers

    forward(B, C, B_bias, C_bias, angle, halves) -> B, C turned, and cosines and sines of the angles
    backward(grad of B, of C, B, C, B_bias, C_bias, cos, sin, halves) -> gradients of B, C, B_bias, C_bias, angle

of contiguous float32 tensors, shaped as turned_keys says, a gradient None where nothing was asked of it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..registration import backend_module, register
from .reference import turned_keys_reference


@torch.library.custom_op("polymamba::turned_keys", mutates_args=())
def _forward(
    B: Tensor, C: Tensor, B_bias: Tensor, C_bias: Tensor, angle: Tensor, halves: bool, backend: str, save: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    turned_B, turned_C, cos, sin = backend_module(backend, __package__).forward(B, C, B_bias, C_bias, angle, halves)
    return turned_B, turned_C, *((cos, sin) if save else (B.new_empty(0), B.new_empty(0)))


@_forward.register_fake
def _(B, C, B_bias, C_bias, angle, halves, backend, save):
    batch, length, rank, _, states = B.shape
    turned = [B.new_empty(batch, angle.shape[1], length, rank, angle.shape[3], states) for _ in range(2)]
    return *turned, *(angle.new_empty(angle.shape if save else (0,)) for _ in range(2))


@torch.library.custom_op("polymamba::turned_keys_backward", mutates_args=())
def _backward(
    grad_B: Tensor | None, grad_C: Tensor | None, B: Tensor, C: Tensor, B_bias: Tensor, C_bias: Tensor, angle: Tensor,
    halves: bool, backend: str, cos: Tensor, sin: Tensor,
) -> list[Tensor]:  # fmt: skip
    return list(backend_module(backend, __package__).backward(grad_B, grad_C, B, C, B_bias, C_bias, cos, sin, halves))


@_backward.register_fake
def _(grad_B, grad_C, B, C, B_bias, C_bias, angle, halves, backend, cos, sin):
    return [t.new_empty(t.shape) for t in (B, C, B_bias, C_bias, angle)]


turned_keys_op = register(
    _forward, _backward, turned_keys_reference, ("B", "C", "B_bias", "C_bias", "angle")
)  # fmt: skip
