"""State space duality as PyTorch operators over dense sequences in visiting order: forward and backward, with shape functions.

    h_t = exp(log_decay_t) h_{t-1} + weight_t sum_r x_(t,r) B_(t,r)^T
    y_(t,r) = exp(log_decay_t) h_{t-1} C_(t,r) + own_weight_t sum_r' (C_(t,r) . B_(t,r')) x_(t,r') + skip x_(t,r)

with h_{t-1} taken as zero at a restart, also at the first step. rank 1 is Mamba-2 and Mamba-3 with one input a step, rank R
Mamba-3 with R; the `rank` rows of a step stand together. dense_reference (reference.py) says the same step by step.

    x: (batch, rows, heads, headdim), rows = steps * rank; any float dtype, y's too.
    log_decay: (batch, steps, heads) float32, at most 0.
    weight: (batch, steps, heads) float32, a step's factor in later outputs and in the state.
    own_weight: (batch, steps, heads) float32, its factor in its own outputs; None: the same.
    B, C: (batch, rows, groups, states); heads are split evenly over groups.
    restart: (batch, steps) bool or None.
    initial_state, final state: (batch, heads, headdim, states) float32; None: zero.
    skip: (batch or 1, heads) float32; None: zero.

A backend module offers three functions:

    forward(x, log_decay, weight, own_weight, B, C, restart, initial_state, rank, save) -> y, final_state, chunk_states
    backward(grad_y, grad_state, x, log_decay, weight, own_weight, B, C, restart, initial_state, rank, chunk_states)
        -> gradients of x, log_decay, weight, own_weight, B, C, initial_state (None where the argument is None)
    saved_shape(batch, steps, heads, headdim, groups, states, rank) -> shape of chunk_states, float32

A module with SKIPS also takes `skip` behind these, and its gradient is the last; for others it is done here.

`chunk_states` holds the state at chunk starts, from which backward replays everything else: memory is linear in length. It is
empty unless `save` is asked for. The operators hand it on flat: a graph need not tell one chunk from several. y and the gradients
are contiguous; one of grad_y and grad_state may be None, not both.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..registration import backend_module, register
from .reference import dense_reference


@torch.library.custom_op("polymamba::state_space_duality", mutates_args=())
def _forward(
    x: Tensor, log_decay: Tensor, weight: Tensor, own_weight: Tensor | None, B: Tensor, C: Tensor,
    restart: Tensor | None, initial_state: Tensor | None, rank: int, skip: Tensor | None, backend: str, save: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    module = backend_module(backend, __package__)
    given = (x, log_decay, weight, own_weight, B, C, restart, initial_state, rank, save)
    if hasattr(module, "SKIPS"):
        y, final_state, chunk_states = module.forward(*given, skip)
    else:
        y, final_state, chunk_states = module.forward(*given)
        if skip is not None:
            y.addcmul_(x, skip[:, None, :, None].to(x.dtype))
    return y, final_state, chunk_states.flatten()


def _saved_shape(x: Tensor, log_decay: Tensor, B: Tensor, rank: int, backend: str) -> tuple[int, ...]:
    (batch, _, heads, width), (groups, states), steps = x.shape, B.shape[2:], log_decay.shape[1]
    return backend_module(backend, __package__).saved_shape(batch, steps, heads, width, groups, states, rank)


@_forward.register_fake
def _(x, log_decay, weight, own_weight, B, C, restart, initial_state, rank, skip, backend, save):
    (batch, _, heads, width), states = x.shape, B.shape[3]
    final_state = x.new_empty((batch, heads, width, states), dtype=torch.float32)
    saved = math.prod(_saved_shape(x, log_decay, B, rank, backend)) if save else 0
    return x.new_empty(x.shape), final_state, x.new_empty(saved, dtype=torch.float32)


@torch.library.custom_op("polymamba::state_space_duality_backward", mutates_args=())
def _backward(
    grad_y: Tensor | None, grad_state: Tensor | None,
    x: Tensor, log_decay: Tensor, weight: Tensor, own_weight: Tensor | None, B: Tensor, C: Tensor,
    restart: Tensor | None, initial_state: Tensor | None, rank: int, skip: Tensor | None, backend: str, chunk_states: Tensor,
) -> list[Tensor]:  # fmt: skip
    module, chunk_states = (
        backend_module(backend, __package__),
        chunk_states.view(_saved_shape(x, log_decay, B, rank, backend)),
    )
    given = (grad_y, grad_state, x, log_decay, weight, own_weight, B, C, restart, initial_state, rank, chunk_states)
    if hasattr(module, "SKIPS"):
        gradients = module.backward(*given, skip)
    else:
        gradients = (*module.backward(*given), None if skip is None else _skip_gradients(grad_y, x, skip))
        if skip is not None and grad_y is not None:
            gradients[0].addcmul_(grad_y.to(x.dtype), skip[:, None, :, None].to(x.dtype))
    return [gradient for gradient in gradients if gradient is not None]


def _skip_gradients(grad_y: Tensor | None, x: Tensor, skip: Tensor) -> Tensor:
    if grad_y is None:
        return torch.zeros_like(skip)
    return (grad_y.float() * x.float()).sum((1, 3)).sum_to_size(skip.shape)


@_backward.register_fake
def _(
    grad_y,
    grad_state,
    x,
    log_decay,
    weight,
    own_weight,
    B,
    C,
    restart,
    initial_state,
    rank,
    skip,
    backend,
    chunk_states,
):
    given = (x, log_decay, weight, own_weight, B, C, initial_state, skip)
    return [t.new_empty(t.shape) for t in given if t is not None]


state_space_duality_op = register(
    _forward,
    _backward,
    dense_reference,
    ("x", "log_decay", "weight", "own_weight", "B", "C", "initial_state", "skip"),
)
