"""The causal convolution as PyTorch operators: forward and backward, with shape functions.

A backend module offers (every axis written out; shapes: causal_conv1d_reference):

    forward(x, weight, bias, activation, order, seq_idx, initial_state) -> out, final_state
    backward(grad_out, grad_state, x, weight, bias, activation, order, seq_idx, initial_state)
        -> gradients of x, weight, bias, initial_state (None where the argument is None)

The CPU backend lays `out` out by empty_by_path; the gradient of x is laid out by empty_rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..arguments import empty_by_path, empty_rows
from ..registration import backend_module, register
from .reference import causal_conv1d_reference


@torch.library.custom_op("polymamba::causal_conv1d", mutates_args=())
def _forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None, order: Tensor | None,
    seq_idx: Tensor | None, initial_state: Tensor | None, backend: str,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return backend_module(backend, __package__).forward(x, weight, bias, activation, order, seq_idx, initial_state)


@_forward.register_fake
def _(x, weight, bias, activation, order, seq_idx, initial_state, backend):
    (batch, _, length, channels), (paths, _, width) = x.shape, weight.shape
    final_state = x.new_empty((batch, paths, channels, width - 1), dtype=torch.float32)
    if backend == "cpu":
        return empty_by_path(x.new_empty, batch, paths, length, channels), final_state
    return x.new_empty((batch, paths, length, channels)), final_state


@torch.library.custom_op("polymamba::causal_conv1d_backward", mutates_args=())
def _backward(
    grad_out: Tensor, grad_state: Tensor | None, x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None,
    order: Tensor | None, seq_idx: Tensor | None, initial_state: Tensor | None, backend: str,
) -> list[Tensor]:  # fmt: skip
    gradients = backend_module(backend, __package__).backward(
        grad_out, grad_state, x, weight, bias, activation, order, seq_idx, initial_state
    )
    return [gradient for gradient in gradients if gradient is not None]


@_backward.register_fake
def _(grad_out, grad_state, x, weight, bias, activation, order, seq_idx, initial_state, backend):
    return [
        empty_rows(x.new_empty, x, backend),
        *(t.new_empty(t.shape) for t in (weight, bias, initial_state) if t is not None),
    ]


causal_conv1d_op = register(_forward, _backward, causal_conv1d_reference, ("x", "weight", "bias", "initial_state"))
