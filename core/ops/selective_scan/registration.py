"""The selective scan as PyTorch operators: forward and backward, with shape functions, so that torch.compile, torch.export and
autograd see through them.

A backend module offers three functions over tensors with every axis written out (shapes: selective_scan_reference):

    forward(x, delta, A, B, C, D, z, delta_bias, delta_softplus, order, seq_idx, initial_state, merge, save)
        -> out, final_state, chunk_states, ungated
    backward(grad_out, grad_state, x, ..., initial_state, merge, chunk_states, ungated)
        -> gradients of x, delta, A, B, C, D, z, delta_bias, initial_state (None where the argument is None)
    saved_shape(batch, paths, steps, channels, groups, states) -> shape of chunk_states, float32

`chunk_states` holds the state at chunk boundaries, from which backward replays everything else: memory is linear in
length. `ungated` is the output before the gate. Both are empty unless `save` is asked for (`ungated` also where z is
None). The gradients of x and delta are laid out by empty_rows.
"""

from __future__ import annotations

from importlib import import_module

import torch
from torch import Tensor

from ..arguments import empty_rows


def _backend(name: str):
    return import_module(f".{name}", __package__)


@torch.library.custom_op("polymamba::selective_scan", mutates_args=())
def _forward(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
    delta_bias: Tensor | None, delta_softplus: bool, order: Tensor | None, seq_idx: Tensor | None,
    initial_state: Tensor | None, merge: str, backend: str, save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    return _backend(backend).forward(
        x, delta, A, B, C, D, z, delta_bias, delta_softplus, order, seq_idx, initial_state, merge, save
    )


@_forward.register_fake
def _(x, delta, A, B, C, D, z, delta_bias, delta_softplus, order, seq_idx, initial_state, merge, backend, save):
    (batch, _, length, channels), (paths, _, states), groups = x.shape, A.shape, B.shape[3]
    steps = length if order is None else order.shape[-1]
    out = x.new_empty((batch, paths, length, channels) if merge == "none" else (batch, length, channels))
    final_state = x.new_empty((batch, paths, channels, states), dtype=torch.float32)
    saved = _backend(backend).saved_shape(batch, paths, steps, channels, groups, states) if save else (0,)
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
    gradients = _backend(backend).backward(
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


def _setup_context(ctx, inputs, output):
    *tensors, delta_softplus, order, seq_idx, initial_state, merge, backend, save = inputs
    if not save:
        raise RuntimeError("the selective scan was run without saving what its backward needs")
    ctx.save_for_backward(*tensors, order, seq_idx, initial_state, *output[2:])
    ctx.delta_softplus, ctx.merge, ctx.backend = delta_softplus, merge, backend
    ctx.mark_non_differentiable(*output[2:])
    ctx.set_materialize_grads(False)


def _gradients(ctx, grad_out, grad_state, *_):
    *tensors, order, seq_idx, initial_state, chunk_states, ungated = ctx.saved_tensors
    if grad_out is None and grad_state is None:
        return (None,) * 15
    if grad_out is None:
        batch, length, channels = tensors[0].shape[0], *tensors[0].shape[2:]
        paths = (tensors[2].shape[0],) if ctx.merge == "none" else ()
        grad_out = tensors[0].new_zeros(batch, *paths, length, channels)
    found = _backward(
        grad_out, grad_state, *tensors, ctx.delta_softplus, order, seq_idx, initial_state, ctx.merge, ctx.backend,
        chunk_states, ungated,
    )  # fmt: skip
    found = iter(found)
    *gradients, grad_initial = [None if t is None else next(found) for t in (*tensors, initial_state)]
    return (*gradients, None, None, None, grad_initial, None, None, None)


_forward.register_autograd(_gradients, setup_context=_setup_context)


def selective_scan_op(
    x, delta, A, B, C, D, z, delta_bias, delta_softplus, order, seq_idx, initial_state, merge, backend
) -> tuple[Tensor, Tensor]:
    """The operator on one backend: (out, final state); saves what backward needs only where a gradient is wanted."""
    given = (x, delta, A, B, C, D, z, delta_bias, initial_state)
    save = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in given)
    out, final_state, _, _ = _forward(
        x, delta, A, B, C, D, z, delta_bias, delta_softplus, order, seq_idx, initial_state, merge, backend, save
    )
    return out, final_state
