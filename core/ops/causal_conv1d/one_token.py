"""The convolution at one token, the step of decoding, without the operator machinery around it."""

from __future__ import annotations

import torch
from torch import Tensor

from ..team import run_at
from .one_token_kernel import convolve_rows


def one_token(
    x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None, state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """One path, length 1; arguments and results as causal_conv1d's."""
    batch, _, channels = x.shape
    after = torch.empty((batch, channels, weight.shape[1] - 1), dtype=torch.float32)
    state = state if state is None else state.float().contiguous()
    return _convolved(x, weight, bias, activation, state, after), after


def move_on(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None, state: Tensor) -> Tensor:
    """As one_token, and the given state moves on itself.

    Args:
        state: (batch, channels, width - 1 or more), float32, contiguous.
    """
    return _convolved(x, weight, bias, activation, state, state)


def _convolved(x, weight, bias, activation, state: Tensor | None, after: Tensor) -> Tensor:
    (batch, _, channels), (_, width) = x.shape, weight.shape
    row = torch.empty((batch, 1, channels), dtype=torch.float32)
    row.copy_(x)
    half = weight.dtype == torch.bfloat16 and (bias is None or bias.dtype == torch.bfloat16)
    weight, bias = (t if t is None else (t if half else t.float()).contiguous() for t in (weight, bias))
    given = (row, weight, bias, state, after)
    run_at(
        convolve_rows, 1,
        (*(0 if t is None else t.data_ptr() for t in given), batch, channels, width, after.shape[2], int(half),
         int(activation == "silu")),
    )  # fmt: skip
    return row.to(x.dtype)
