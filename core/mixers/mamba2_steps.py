"""Decoding with Mamba-2 mixers: one token in one call of the kernel, through one mixer or through the layers of a stack."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from ..linear import CONVOLUTION, is_plain
from ..ops.mamba2_step import Mamba2Weights, mamba2_step, mamba2_steps
from ..ops.one_token import few_rows_at_once
from .gated_norm import GatedRMSNorm

if TYPE_CHECKING:
    from .mamba2 import Mamba2, Mamba2State

NONE = (None, None)


def step(mixer: Mamba2, x: Tensor, state: Mamba2State | None) -> tuple[Tensor, tuple[Tensor, Tensor]] | None:
    """What the mixer makes of one token of each sequence, (batch, 1, d_model); None where the kernel does not know the case."""
    if not few_rows_at_once(x, mixer.backend):
        return None
    weights = _weights(mixer)
    return None if weights is None else mamba2_step(x, weights, state or NONE, backend=mixer.backend)


def step_through(mixers: Sequence[Mamba2], hidden: Tensor, norms: Sequence[tuple[Tensor, float]], states: Sequence):
    """mamba2_steps of the mixers' layers; None where the kernel does not know the case."""
    weights = [_weights(mixer) for mixer in mixers]
    if None in weights or len({mixer.backend for mixer in mixers}) > 1:
        return None
    return mamba2_steps(hidden, weights, norms, [state or NONE for state in states], mixers[0].backend)


def _weights(mixer: Mamba2) -> Mamba2Weights | None:
    """The parameters of a mixer of one path in raster order; None where it is another, or its parts do more than compute."""
    m, in_proj, out_proj, conv, norm = mixer, mixer.in_proj, mixer.out_proj, mixer.conv1d, mixer.norm
    if not (m.one_raster_path and is_plain(in_proj) and is_plain(out_proj) and is_plain(conv, CONVOLUTION)) or m.d_mlp:
        return None
    if norm is not None and not is_plain(norm, (GatedRMSNorm,)):
        return None
    normed = (1, False, 1e-5) if norm is None else (norm.groups, norm.norm_before_gate, norm.eps)
    return Mamba2Weights(
        in_proj.weight, in_proj.bias, conv.weight, conv.bias, m.dt_bias, m.A_log, m.D, None if norm is None else norm.weight,
        out_proj.weight, out_proj.bias, m.headdim, m.ngroups, *normed, m.dt_limit,
    )  # fmt: skip
