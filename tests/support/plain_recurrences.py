"""The recurrences of Mamba-1 and Mamba-2 in upstream's layouts, step by step from the papers' equations."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def scan(u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False) -> tuple[Tensor, Tensor]:
    """Mamba-1: u, delta, z (batch, channels, length); B, C (channels, states) or (batch, [groups,] states, length)."""
    batch, channels, length = u.shape
    delta = delta if delta_bias is None else delta + delta_bias[:, None]
    delta = F.softplus(delta) if delta_softplus else delta

    def at(t, step):
        if t.dim() == 2:
            return t[None]
        t = t[..., step] if t.dim() == 4 else t[:, None, :, step]
        return t.repeat_interleave(channels // t.shape[1], 1)

    h, out = torch.zeros(batch, channels, A.shape[1], dtype=A.dtype), []
    for t in range(length):
        d = delta[:, :, t, None]
        h = torch.exp(d * A) * h + d * at(B, t) * u[:, :, t, None]
        y = (h * at(C, t)).sum(-1)
        out.append(2 * y.real if y.is_complex() else y)
    y = torch.stack(out, -1)
    y = y if D is None else y + D[:, None] * u
    return (y if z is None else y * F.silu(z)), h


def convolution(x, weight, bias=None) -> Tensor:
    """Depthwise causal convolution of (batch, channels, length) and SiLU."""
    y = F.conv1d(F.pad(x, (weight.shape[1] - 1, 0)), weight[:, None], bias, groups=x.shape[1])
    return F.silu(y)


def duality(x, dt, A, B, C, D=None, z=None, dt_bias=None, state=None, dt_softplus=False) -> tuple[Tensor, Tensor]:
    """Mamba-2: x, z (batch, length, heads, headdim), dt (batch, length, heads), B, C (batch, length, groups, states)."""
    heads = x.shape[2]
    dt = dt if dt_bias is None else dt + dt_bias
    dt = F.softplus(dt) if dt_softplus else dt
    B, C = (t.repeat_interleave(heads // t.shape[2], 2) for t in (B, C))
    h = torch.zeros(x.shape[0], heads, x.shape[3], B.shape[3], dtype=x.dtype) if state is None else state
    out = []
    for t in range(x.shape[1]):
        decay = torch.exp(dt[:, t] * A)[..., None, None]
        h = decay * h + (dt[:, t, :, None] * x[:, t])[..., None] * B[:, t, :, None]
        out.append((h * C[:, t, :, None]).sum(-1))
    y = torch.stack(out, 1)
    if D is not None:
        y = y + x * (D[:, None] if D.dim() == 1 else D)
    return (y if z is None else y * F.silu(z)), h
