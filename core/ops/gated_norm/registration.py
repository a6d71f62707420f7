"""The gated norm as PyTorch operators: forward and backward, with shape functions.

A backend module offers

    forward(x, z, weight, groups, norm_before_gate, eps) -> out
    backward(grad, x, z, weight, groups, norm_before_gate, eps) -> gradients of x, z, weight, contiguous

of x, z: (..., channels) float32 and weight: (channels,); without z there is no gradient of it. Operators here return a state
too; this one's is empty.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..registration import backend_module, register
from .reference import gated_norm_reference


@torch.library.custom_op("polymamba::gated_norm", mutates_args=())
def _forward(
    x: Tensor, z: Tensor | None, weight: Tensor, groups: int, norm_before_gate: bool, eps: float, backend: str
) -> tuple[Tensor, Tensor]:
    out = backend_module(backend, __package__).forward(x, z, weight, groups, norm_before_gate, eps)
    return out, x.new_empty(0)


@_forward.register_fake
def _(x, z, weight, groups, norm_before_gate, eps, backend):
    return x.new_empty(x.shape), x.new_empty(0)


@torch.library.custom_op("polymamba::gated_norm_backward", mutates_args=())
def _backward(
    grad_out: Tensor, grad_state: Tensor | None, x: Tensor, z: Tensor | None, weight: Tensor, groups: int,
    norm_before_gate: bool, eps: float, backend: str,
) -> list[Tensor]:  # fmt: skip
    found = backend_module(backend, __package__).backward(grad_out, x, z, weight, groups, norm_before_gate, eps)
    return [gradient for gradient in found if gradient is not None]


@_backward.register_fake
def _(grad_out, grad_state, x, z, weight, groups, norm_before_gate, eps, backend):
    return [t.new_empty(t.shape) for t in (x, z, weight) if t is not None]


gated_norm_op = register(_forward, _backward, gated_norm_reference, ("x", "z", "weight"))
