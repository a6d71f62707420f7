"""Decoding with Mamba mixers: one token in one call of the kernel, through one mixer or through the layers of a stack."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from ..linear import CONVOLUTION, is_plain
from ..ops.mamba_step import MambaWeights, mamba_step, mamba_steps
from ..ops.one_token import few_rows_at_once

if TYPE_CHECKING:
    from .mamba import Mamba, MambaState

NONE = (None, None)


def step(mixer: Mamba, x: Tensor, state: MambaState | None) -> tuple[Tensor, tuple[Tensor, Tensor]] | None:
    """What the mixer makes of one token of each sequence, (batch, 1, d_model); None where the kernel does not know the case."""
    if not few_rows_at_once(x, mixer.backend):
        return None
    weights = _weights(mixer)
    return None if weights is None else mamba_step(x, weights, state or NONE, backend=mixer.backend)


def step_through(mixers: Sequence[Mamba], hidden: Tensor, norms: Sequence[tuple[Tensor, float]], states: Sequence):
    """mamba_steps of the mixers' layers; None where the kernel does not know the case."""
    weights = [_weights(mixer) for mixer in mixers]
    if None in weights or len({mixer.backend for mixer in mixers}) > 1:
        return None
    return mamba_steps(hidden, weights, norms, [state or NONE for state in states], mixers[0].backend)


def _weights(mixer: Mamba) -> MambaWeights | None:
    """The parameters of a mixer of one path in raster order; None where it is another, or its layers do more than multiply."""
    m, in_proj, out_proj = mixer, mixer.in_proj, mixer.out_proj
    if not (m.one_raster_path and is_plain(in_proj) and is_plain(out_proj)):
        return None
    end = m._ends[0]
    conv, x_proj, dt_proj = (getattr(m, name + end) for name in ("conv1d", "x_proj", "dt_proj"))
    if not (is_plain(conv, CONVOLUTION) and is_plain(x_proj) and is_plain(dt_proj) and x_proj.bias is None):
        return None
    norms = None
    if m.norms != "none":
        norms = (None,) * 3
    if m.norms == "learned":
        layers = [getattr(m, f"{name}_layernorm{end}") for name in ("dt", "b", "c")]
        if not all(is_plain(layer, (nn.RMSNorm,)) for layer in layers):
            return None
        norms = tuple(layer.weight for layer in layers)
    return MambaWeights(
        in_proj.weight, in_proj.bias, conv.weight, conv.bias, x_proj.weight, dt_proj.weight, dt_proj.bias,
        getattr(m, f"A{m._decay_ends[0]}_log"), getattr(m, f"D{end}"), out_proj.weight, out_proj.bias, norms, m.norm_eps,
    )  # fmt: skip
