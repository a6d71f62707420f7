"""Root mean square norm over groups of channels, with a gate before or after it (Mamba-2, arXiv 2405.21060, section 7)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..ops.gated_norm import gated_norm


class GatedRMSNorm(nn.Module):
    """norm(x * silu(z)), or norm(x) * silu(z); the norm is taken within each group of channels.

    Args:
        channels: of x and z.
        groups: equal groups of neighbouring channels.
        norm_before_gate: normalise first, then gate.
        eps: added to the mean square.
        backend: of the operator.
        device, dtype: of the weight (channels,).
    """

    def __init__(
        self, channels: int, groups: int = 1, norm_before_gate: bool = False, eps: float = 1e-5, backend: str = "auto",
        device=None, dtype=None,
    ):  # fmt: skip
        super().__init__()
        self.groups, self.norm_before_gate, self.eps, self.backend = groups, norm_before_gate, eps, backend
        self.weight = nn.Parameter(torch.ones(channels, device=device, dtype=dtype))

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """(..., channels), in x's dtype; computed in float32 at least."""
        return gated_norm(x, z, self.weight, self.groups, self.norm_before_gate, self.eps, self.backend)

    def extra_repr(self) -> str:
        return f"{self.weight.numel()}, groups={self.groups}, norm_before_gate={self.norm_before_gate}"
