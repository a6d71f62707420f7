"""The causal convolution as PyTorch operators: forward and backward, with shape functions.

A backend module offers (every axis written out; shapes: causal_conv1d_reference):

    forward(x, weight, bias, activation, order, seq_idx, initial_state) -> out, final_state
    backward(grad_out, grad_state, x, weight, bias, activation, order, seq_idx, initial_state)
        -> gradients of x, weight, bias, initial_state (None where the argument is None)

The CPU backend lays `out` out by empty_by_path; the gradient of x is laid out by empty_rows.
"""

from __future__ import annotations

from importlib import import_module

import torch
from torch import Tensor

from ..arguments import empty_by_path, empty_rows


def _backend(name: str):
    return import_module(f".{name}", __package__)


@torch.library.custom_op("polymamba::causal_conv1d", mutates_args=())
def _forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None, order: Tensor | None,
    seq_idx: Tensor | None, initial_state: Tensor | None, backend: str,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return _backend(backend).forward(x, weight, bias, activation, order, seq_idx, initial_state)


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
    gradients = _backend(backend).backward(
        grad_out, grad_state, x, weight, bias, activation, order, seq_idx, initial_state
    )
    return [gradient for gradient in gradients if gradient is not None]


@_backward.register_fake
def _(grad_out, grad_state, x, weight, bias, activation, order, seq_idx, initial_state, backend):
    return [
        empty_rows(x.new_empty, x, backend),
        *(t.new_empty(t.shape) for t in (weight, bias, initial_state) if t is not None),
    ]


def _setup_context(ctx, inputs, output):
    x, weight, bias, ctx.activation, order, seq_idx, initial_state, ctx.backend = inputs
    ctx.save_for_backward(x, weight, bias, order, seq_idx, initial_state)
    ctx.set_materialize_grads(False)


def _gradients(ctx, grad_out, grad_state):
    x, weight, bias, order, seq_idx, initial_state = ctx.saved_tensors
    if grad_out is None and grad_state is None:
        return (None,) * 8
    if grad_out is None:
        grad_out = x.new_zeros(x.shape[0], weight.shape[0], *x.shape[2:])
    found = _backward(grad_out, grad_state, x, weight, bias, ctx.activation, order, seq_idx, initial_state, ctx.backend)
    found = iter(found)
    gradients = [None if t is None else next(found) for t in (x, weight, bias, initial_state)]
    return (*gradients[:3], None, None, None, gradients[3], None)


_forward.register_autograd(_gradients, setup_context=_setup_context)
causal_conv1d_op = _forward
