"""One token through whole Mamba-2 mixers in one call: what decoding spends its time on.

reference.py defines it by the operators that it is made of; where the kernel does not know a case, whoever calls goes that way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from typing import NamedTuple

from torch import Tensor

from ..one_token import few_rows_at_once


class Mamba2Weights(NamedTuple):
    """A mixer's parameters and options.

    in_proj: (2 channels + 2 groups * states + heads, model channels), for z, x, B, C and the step; in_bias.
    conv: (channels + 2 groups * states, 1, taps), conv_bias. dt_bias, A_log: (heads,). D: (heads,) or (channels,).
    norm: (channels,), of the gated RMS norm, None: the gate alone. out_proj: (model channels, channels), out_bias.
    headdim: channels of a head. groups: of B, C and the norm. norm_before_gate, norm_eps: as in GatedRMSNorm.
    norm_groups: of the norm. dt_limit: smallest and largest step size.
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


# (batch, convolved channels, taps - 1 or more), the last inputs of the convolution, and (batch, heads, headdim, states),
# float32; None: zeros.
States = tuple[Tensor | None, Tensor | None]


def mamba2_step(
    x: Tensor, weights: Mamba2Weights, states: States, in_place: bool = False, backend: str = "auto"
) -> tuple[Tensor, tuple[Tensor, Tensor]] | None:
    """One token through a mixer, all sums in float32; arguments and results as mamba_step's."""
    return _layers().step(x, weights, states, in_place) if few_rows_at_once(x, backend) else None


def mamba2_steps(
    hidden: Tensor,
    weights: Sequence[Mamba2Weights],
    norms: Sequence[tuple[Tensor, float]],
    states: Sequence[States],
    backend: str = "auto",
) -> tuple[Tensor, Tensor, list[tuple[Tensor, Tensor]]] | None:
    """One token through the mixers of several layers; arguments and results as mamba_steps's."""
    return _layers().steps(hidden, weights, norms, states) if few_rows_at_once(hidden, backend) else None


@cache
def _layers():
    return import_module(".cpu", __package__).layers
