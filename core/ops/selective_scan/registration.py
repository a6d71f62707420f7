"""The selective scan as PyTorch operators: forward and backward, with shape functions, so that torch.compile, torch.export and
autograd see through them.

A backend module offers three functions over tensors with every axis written out (shapes: selective_scan_reference):

    forward(x, delta, A, B, C, D, z, delta_bias, delta_softplus, order, seq_idx, initial_state, merge, save)
        -> out, final_state, chunk_states, ungated
    backward(grad_out, grad_state, x, ..., initial_state, merge, chunk_states, ungated)
        -> gradients of x, delta, A, B, C, D, z, delta_bias, initial_state (None where the argument is None)
    saved_shape(batch, paths, steps, channels, groups, states) -> shape of chunk_states, float32

`chunk_states` holds the state at chunk boundaries, from which backward replays everything else: memory is linear in
length. The operators hand it on flat: a graph need not tell one chunk from several. `ungated` is the output before the gate.
Both are empty unless `save` is asked for (`ungated` also where z is None). The gradients of x and delta are laid out by
empty_rows.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..arguments import empty_rows
from ..registration import backend_module, register
from .reference import selective_scan_reference


@torch.library.custom_op("polymamba::selective_scan", mutates_args=())
def _forward(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
    delta_bias: Tensor | None, delta_softplus: bool, order: Tensor | None, seq_idx: Tensor | None,
    initial_state: Tensor | None, merge: str, backend: str, save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    out, final_state, chunk_states, ungated = backend_module(backend, __package__).forward(
        x, delta, A, B, C, D, z, delta_bias, delta_softplus, order, seq_idx, initial_state, merge, save
    )
    return out, final_state, chunk_states.flatten(), ungated


def _saved_shape(x: Tensor, A: Tensor, B: Tensor, order: Tensor | None, backend: str) -> tuple[int, ...]:
    (batch, _, length, channels), (paths, _, states), groups = x.shape, A.shape, B.shape[3]
    steps = length if order is None else order.shape[-1]
    return backend_module(backend, __package__).saved_shape(batch, paths, steps, channels, groups, states)


@_forward.register_fake
def _(x, delta, A, B, C, D, z, delta_bias, delta_softplus, order, seq_idx, initial_state, merge, backend, save):
    (batch, _, length, channels), (paths, _, states) = x.shape, A.shape
    out = x.new_empty((batch, paths, length, channels) if merge == "none" else (batch, length, channels))
    final_state = x.new_empty((batch, paths, channels, states), dtype=torch.float32)
    saved = math.prod(_saved_shape(x, A, B, order, backend)) if save else 0
    chunk_states = x.new_empty(saved, dtype=torch.float32)
    ungated = x.new_empty(out.shape if save and z is not None else (0,), dtype=torch.float32)
    return out, final_state, chunk_states, ungated


@torch.library.custom_op("polymamba::selective_scan_backward", mutates_args=())
def _backward(
    grad_out: Tensor, grad_state: Tensor | None,
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
    delta_bias: Tensor | None, delta_softplus: bool, order: Tensor | None, seq_idx: Tensor | None,
    initial_state: Tensor | None, merge: str, backend: str, chunk_states: Tensor, ungated: Tensor,
) -> list[Tensor]:  # fmt: skip
    chunk_states = chunk_states.view(_saved_shape(x, A, B, order, backend))
    gradients = backend_module(backend, __package__).backward(
        grad_out, grad_state, x, delta, A, B, C, D, z, delta_bias, delta_softplus, order, seq_idx, initial_state, merge,
        chunk_states, ungated,
    )  # fmt: skip
    return [gradient for gradient in gradients if gradient is not None]


@_backward.register_fake
def _(
    grad_out, grad_state, x, delta, A, B, C, D, z, delta_bias, delta_softplus, order, seq_idx, initial_state, merge, backend, *_
):  # fmt: skip
    rest = (A, B, C, D, z, delta_bias, initial_state)
    rows = [empty_rows(t.new_empty, t, backend) for t in (x, delta)]
    return [*rows, *(t.new_empty(t.shape) for t in rest if t is not None)]


selective_scan_op = register(
    _forward,
    _backward,
    selective_scan_reference,
    ("x", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state"),
)
