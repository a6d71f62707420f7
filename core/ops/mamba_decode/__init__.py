"""One token through whole Mamba mixers in one call: what decoding spends its time on.

reference.py defines it by the operators that it is made of, cpu.py is the kernel.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from ..decoding import Decoder


class MambaWeights(NamedTuple):
    """A mixer's parameters.

    in_proj: (channels, or twice as many with a gate, model channels), in_bias. conv: (channels, 1, taps), conv_bias.
    x_proj: (rank + 2 states, channels). dt_proj: (channels, rank), dt_bias. A_log: (channels, states). D: (channels,).
    out_proj: (model channels, channels), out_bias. norms: None, or for the step, B and C a weight or None each: they are
    normalised. norms_eps: added to the mean squares.

    Its states: (batch, channels, taps - 1 or more), the last inputs of the convolution, and (batch, channels, states).
    """

    in_proj: Tensor
    in_bias: Tensor | None
    conv: Tensor
    conv_bias: Tensor | None
    x_proj: Tensor
    dt_proj: Tensor
    dt_bias: Tensor | None
    A_log: Tensor
    D: Tensor
    out_proj: Tensor
    out_bias: Tensor | None
    norms: tuple[Tensor | None, Tensor | None, Tensor | None] | None = None
    norms_eps: float = 1e-6


mamba_decode = Decoder(__package__)
