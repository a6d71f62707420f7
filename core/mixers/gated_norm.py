"""Root mean square norm over groups of channels, with a gate before or after it (Mamba-2, arXiv 2405.21060, section 7)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class GatedRMSNorm(nn.Module):
    """norm(x * silu(z)), or norm(x) * silu(z); the norm is taken within each group of channels.

    Args:
        channels: of x and z.
        groups: equal groups of neighbouring channels.
        norm_before_gate: normalise first, then gate.
        eps: added to the mean square.
        device, dtype: of the weight (channels,).
    """

    def __init__(
        self, channels: int, groups: int = 1, norm_before_gate: bool = False, eps: float = 1e-5, device=None, dtype=None
    ):
        super().__init__()
        self.groups, self.norm_before_gate, self.eps = groups, norm_before_gate, eps
        self.weight = nn.Parameter(torch.ones(channels, device=device, dtype=dtype))

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """(..., channels), in x's dtype; computed in float32 at least."""
        kind = torch.promote_types(x.dtype, torch.float32)
        value, gate = x.to(kind), F.silu(z.to(kind))
        if not self.norm_before_gate:
            value = value * gate
        if self.groups == 1:
            value = F.rms_norm(value, value.shape[-1:], self.weight.to(kind), self.eps)
        else:
            value = value.unflatten(-1, (self.groups, -1))
            value = F.rms_norm(value, value.shape[-1:], None, self.eps).flatten(-2) * self.weight.to(kind)
        return (value * gate if self.norm_before_gate else value).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.weight.numel()}, groups={self.groups}, norm_before_gate={self.norm_before_gate}"
