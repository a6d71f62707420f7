"""The convolution at one token, the step of decoding, without the operator machinery around it."""

from __future__ import annotations

import torch
from torch import Tensor

from ..cpu.calls import address, record, run, whole
from ..cpu.memory import empty
from .decode_kernel import convolve_rows


def decode(
    x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None, state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """One path, length 1; arguments and results as causal_conv1d's."""
    batch, _, channels = x.shape
    after = empty(batch, channels, weight.shape[1] - 1)
    return _convolved(x, weight, bias, activation, whole(state), after), after


def decode_in_place(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None, state: Tensor) -> Tensor:
    """As decode, and the given state moves on itself.

    Args:
        state: (batch, channels, width - 1 or more), float32, contiguous.
    """
    return _convolved(x, weight, bias, activation, state, state)


def _convolved(x, weight, bias, activation, state: Tensor | None, after: Tensor) -> Tensor:
    (batch, _, channels), (_, width) = x.shape, weight.shape
    row = empty(batch, 1, channels)
    row.copy_(x)
    half = weight.dtype == torch.bfloat16 and (bias is None or bias.dtype == torch.bfloat16)
    weight, bias = (whole(t, torch.bfloat16 if half else torch.float32) for t in (weight, bias))
    kept = (batch, channels, after.shape[2])
    told = record(
        convolve_rows, row=address("row", row, x.shape), conv_w=address("conv_w", weight, (channels, width), weight.dtype),
        conv_b=address("conv_b", bias, (channels,), weight.dtype), conv_state=address("conv_state", state, kept),
        conv_after=address("conv_after", after, kept), batch=batch, channels=channels, W=width, K=kept[2], half=half,
        silu=activation == "silu",
    )  # fmt: skip
    run(convolve_rows, 1, told)
    return row.to(x.dtype)
