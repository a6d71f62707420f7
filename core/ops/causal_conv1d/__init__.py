"""Causal depthwise convolution along any number of paths through the tokens.

reference.py defines it, cpu.py (Numba) and gpu.py (Triton) compute it fast, registration.py makes it a PyTorch operator.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module

import torch
from torch import Tensor

from ...errors import check_choice
from ..arguments import Shapes, check_shape, contiguous_as
from ..backends import KERNEL_DTYPES, resolve
from ..decoding import direct
from .reference import causal_conv1d_reference
from .registration import causal_conv1d_op

__all__ = ["causal_conv1d", "causal_conv1d_decode", "causal_conv1d_reference"]

ACTIVATIONS = (None, "silu")
SHAPES = Shapes(
    {"x": "batch paths length channels", "weight": "paths channels width", "bias": "paths channels"}
    | {"initial_state": "batch paths channels taps"},
    each=["initial_state"],
)


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    order: Tensor | None = None,
    seq_idx: Tensor | None = None,
    initial_state: Tensor | None = None,
    return_final_state: bool = False,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """Depthwise causal convolution whose taps are the tokens before this one on the path.

    Args:
        x: (batch, length, channels) or (batch, paths, length, channels).
        weight: ([paths,] channels, width); the last tap is the token itself.
        bias: ([paths,] channels).
        activation: None or "silu", applied to the result.
        order: (paths, steps) or (batch, paths, steps), integer, as in selective_scan; None: the raster order.
        seq_idx: (batch, length), integer: no tap reaches across a change of it (packing).
        initial_state: (batch, [paths,] channels, width - 1): the inputs before the first step, oldest first.
        return_final_state: also return the last width - 1 inputs of each path, as the state to continue from.
        backend: "auto", "reference", "cpu" or "gpu".

    Returns:
        (batch, paths, length, channels), without the paths axis where no argument shows one and there is one path; zero
        at tokens that a path does not visit; x's dtype. With `return_final_state` also the state, shaped like
        `initial_state`. Both are differentiable.

    Raises:
        UserError: shapes that do not fit, an unknown activation or backend, an order that leaves the tokens or visits
            one twice (checked on the CPU; on a GPU such steps are ignored).
    """
    check_choice("activation", activation, ACTIVATIONS)
    if order is None and direct(x, backend) and x.dim() == 3 and x.shape[1] == 1 and x.numel():
        found = _decode(x, weight, bias, activation, initial_state)
        if found is not None:
            return found if return_final_state else found[0]
    given = {"x": x, "weight": weight, "bias": bias, "initial_state": initial_state}
    paths, has_paths = SHAPES.count_paths(order, given)
    x_, weight_, bias_, state_, order_ = SHAPES.written_out(paths, given, order, seq_idx)
    check_shape("initial_state", state_, (None, paths, None, weight_.shape[-1] - 1))

    name, _ = resolve(x.device, x.dtype, backend, (x, weight, bias, initial_state))
    arguments = (x_, weight_, bias_, activation, order_, seq_idx, state_)
    if name == "reference":
        out, final_state = causal_conv1d_reference(*arguments)
    else:
        out, final_state = causal_conv1d_op(*arguments, name)
    if not has_paths:
        out, final_state = out.squeeze(1), final_state.squeeze(1)
    return (out, final_state) if return_final_state else out


def _decode(x, weight, bias, activation, state) -> tuple[Tensor, Tensor] | None:
    """One token the quick way; None where that does not know the case, or the shapes do not fit."""
    batch, _, channels = x.shape
    given = ((x, x.shape), (weight, (channels, weight.shape[-1])), (bias, (channels,)))
    given += ((state, (batch, channels, weight.shape[-1] - 1)),)
    for tensor, shape in given:
        if tensor is not None and (tensor.shape != shape or tensor.dtype not in KERNEL_DTYPES):
            return None
    return _decoding().decode(x, weight, bias, activation, state)


def causal_conv1d_decode(
    x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None, state: Tensor
) -> Tensor | None:
    """One token of each sequence, (batch, 1, channels); the given state moves on itself.

    Args:
        state: (batch, channels, width - 1 or more), float32, contiguous, the last inputs, oldest first.

    Returns:
        Shaped like x, or None, and nothing has changed, where there is no such quick way: gradients, traces, other
        devices, dtypes or shapes.
    """
    batch, length, channels = x.shape
    known = (t.dtype in KERNEL_DTYPES for t in (x, weight, bias) if t is not None)
    fits = (
        length == 1
        and x.numel() > 0
        and direct(x)
        and all(known)
        and weight.shape == (channels, weight.shape[-1])
        and (bias is None or bias.shape == (channels,))
        and state.shape[-1] >= weight.shape[-1] - 1
        and contiguous_as(state, (batch, channels, state.shape[-1]), torch.float32)
    )
    return _decoding().decode_in_place(x, weight, bias, activation, state) if fits else None


@cache
def _decoding():
    return import_module(".decode", __package__)
