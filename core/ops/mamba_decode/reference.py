"""One token of a Mamba mixer by the operators that it is made of: the definition."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..causal_conv1d import causal_conv1d
from ..decoding import States
from ..selective_scan import selective_scan
from . import MambaWeights


def mamba_decode_reference(x: Tensor, weights: MambaWeights, states: States) -> tuple[Tensor, States]:
    """Arguments and results as mamba_decode's, of any dtype and length; the convolution keeps one input less than its taps."""
    w, (conv_state, ssm_state), back = weights, states, {"backend": "reference"}
    channels, size = w.A_log.shape
    u, *z = F.linear(x, w.in_proj, w.in_bias).split(channels, -1)
    u, conv_state = causal_conv1d(
        u, w.conv.squeeze(1), w.conv_bias, "silu", initial_state=conv_state, return_final_state=True, **back
    )
    parts = F.linear(u, w.x_proj).split([w.dt_proj.shape[1], size, size], -1)
    if w.norms is not None:
        parts = (F.rms_norm(t, t.shape[-1:], n, w.norms_eps) for t, n in zip(parts, w.norms, strict=True))
    step, B, C = parts
    y, ssm_state = selective_scan(
        u, F.linear(step, w.dt_proj), -torch.exp(w.A_log), B, C, w.D, z[0] if z else None, w.dt_bias, True,
        initial_state=ssm_state, return_final_state=True, **back,
    )  # fmt: skip
    return F.linear(y, w.out_proj, w.out_bias), (conv_state, ssm_state)
