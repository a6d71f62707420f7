"""One token through whole Mamba mixers in one call: what decoding spends its time on.

reference.py defines it by the operators that it is made of; where the kernel does not know a case, whoever calls goes that way.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import import_module
from typing import NamedTuple

from torch import Tensor

from ..one_token import few_rows_at_once


class MambaWeights(NamedTuple):
    """A mixer's parameters.

    in_proj: (channels, or twice as many with a gate, model channels), in_bias. conv: (channels, 1, taps), conv_bias.
    x_proj: (rank + 2 states, channels). dt_proj: (channels, rank), dt_bias. A_log: (channels, states). D: (channels,).
    out_proj: (model channels, channels), out_bias. norms: None, or for the step, B and C a weight or None each: they are
    normalised. norms_eps: added to the mean squares.
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


# (batch, channels, taps - 1 or more), the last inputs of the convolution, and (batch, channels, states), float32; None: zeros.
States = tuple[Tensor | None, Tensor | None]


def mamba_step(
    x: Tensor, weights: MambaWeights, states: States, in_place: bool = False, backend: str = "auto"
) -> tuple[Tensor, tuple[Tensor, Tensor]] | None:
    """One token through a mixer, all sums in float32.

    Args:
        x: (batch, 1, model channels), float32 or bfloat16, in the dtype of the weights.
        states: where the sequences stand.
        in_place: move the given states on instead of making new ones.
        backend: of the operator.

    Returns:
        (batch, 1, model channels) in x's dtype and the states after the token, or None where the kernel does not know the
        case: gradients, traces, other devices, dtypes or shapes, many sequences.
    """
    return _layers().step(x, weights, states, in_place) if few_rows_at_once(x, backend) else None


def mamba_steps(
    hidden: Tensor,
    weights: Sequence[MambaWeights],
    norms: Sequence[tuple[Tensor, float]],
    states: Sequence[States],
    backend: str = "auto",
) -> tuple[Tensor, Tensor, list[tuple[Tensor, Tensor]]] | None:
    """One token through the mixers of several layers: residual = residual + hidden, hidden = mixer(RMSNorm(residual)), each.

    Args:
        hidden: (batch, 1, model channels), as x of mamba_step; the residual is zero at first.
        norms: a weight (model channels,) and what is added to the mean square.

    Returns:
        hidden in its dtype, residual in float32, each layer's states; or None, as mamba_step.
    """
    return _layers().steps(hidden, weights, norms, states) if few_rows_at_once(hidden, backend) else None


@cache
def _layers():
    return import_module(".cpu", __package__).layers
