"""One token of a Mamba-2 mixer by the operators that it is made of: the definition."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..causal_conv1d import causal_conv1d
from ..decoding import States
from ..state_space_duality import state_space_duality
from . import Mamba2Weights


def mamba2_decode_reference(x: Tensor, weights: Mamba2Weights, states: States) -> tuple[Tensor, States]:
    """Arguments and results as mamba2_decode's, of any dtype and length; the convolution keeps one input less than its taps."""
    w, (conv_state, ssm_state), back = weights, states, {"backend": "reference"}
    channels, (heads,), convolved = w.out_proj.shape[1], w.A_log.shape, w.conv.shape[0]
    z, xbc, dt = F.linear(x, w.in_proj, w.in_bias).split([channels, convolved, heads], -1)
    xbc, conv_state = causal_conv1d(
        xbc, w.conv.squeeze(1), w.conv_bias, "silu", initial_state=conv_state, return_final_state=True, **back
    )
    u, B, C = xbc.split([channels, *[(convolved - channels) // 2] * 2], -1)
    y, ssm_state = state_space_duality(
        u.unflatten(-1, (heads, -1)), dt, -torch.exp(w.A_log), *(t.unflatten(-1, (w.groups, -1)) for t in (B, C)),
        w.D if w.D.shape[0] == heads else w.D.view(heads, -1), None, w.dt_bias, True, w.dt_limit, initial_state=ssm_state,
        return_final_state=True, **back,
    )  # fmt: skip
    y, gate = y.flatten(-2), F.silu(z)
    if w.norm is None or not w.norm_before_gate:
        y = y * gate
    if w.norm is not None:
        y = y.unflatten(-1, (w.norm_groups, -1))
        y = F.rms_norm(y, y.shape[-1:], None, w.norm_eps).flatten(-2) * w.norm
        y = y * gate if w.norm_before_gate else y
    return F.linear(y, w.out_proj, w.out_bias), (conv_state, ssm_state)
