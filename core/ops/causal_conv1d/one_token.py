"""The convolution at one token, the step of decoding, without the operator machinery around it."""

from __future__ import annotations

import torch
from torch import Tensor

from ..team import run_at
from .one_token_kernel import convolve


def one_token(
    x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None, state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """One path, length 1; arguments and results as causal_conv1d's."""
    (batch, _, channels), width, kind = x.shape, weight.shape[1], x.dtype
    x = x.float() if x.stride(-1) == 1 else x.float().contiguous()
    weight, bias, state = (t if t is None else t.float().contiguous() for t in (weight, bias, state))
    out = torch.empty((batch, 1, channels), dtype=torch.float32)
    after = torch.empty((batch, channels, width - 1), dtype=torch.float32)
    given = (x, weight, bias, state)
    run_at(
        convolve, 1,
        (*(0 if t is None else t.data_ptr() for t in given), out.data_ptr(), after.data_ptr(), x.stride(0), batch, channels,
         width, int(activation == "silu")),
    )  # fmt: skip
    return out.to(kind), after
