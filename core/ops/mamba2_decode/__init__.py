"""One token through whole Mamba-2 mixers in one call: what decoding spends its time on.

reference.py defines it by the operators that it is made of, cpu.py is the kernel.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from ..decoding import Decoder


class Mamba2Weights(NamedTuple):
    """A mixer's parameters and options.

    in_proj: (2 channels + 2 groups * states + heads, model channels), for z, x, B, C and the step; in_bias.
    conv: (channels + 2 groups * states, 1, taps), conv_bias. dt_bias, A_log: (heads,). D: (heads,) or (channels,).
    norm: (channels,), of the gated RMS norm, None: the gate alone. out_proj: (model channels, channels), out_bias.
    headdim: channels of a head. groups: of B, C and the norm. norm_before_gate, norm_eps: as in GatedRMSNorm.
    norm_groups: of the norm. dt_limit: smallest and largest step size.

    Its states: (batch, convolved channels, taps - 1 or more), the last inputs of the convolution, and (batch, heads, headdim,
    states).
    """

    in_proj: Tensor
    in_bias: Tensor | None
    conv: Tensor
    conv_bias: Tensor | None
    dt_bias: Tensor
    A_log: Tensor
    D: Tensor
    norm: Tensor | None
    out_proj: Tensor
    out_bias: Tensor | None
    headdim: int
    groups: int = 1
    norm_groups: int = 1
    norm_before_gate: bool = False
    norm_eps: float = 1e-5
    dt_limit: tuple[float, float] = (0.0, math.inf)


mamba2_decode = Decoder(__package__)
