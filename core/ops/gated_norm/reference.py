"""The gated norm in plain PyTorch: its definition."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def gated_norm_reference(
    x: Tensor, z: Tensor | None, weight: Tensor, groups: int, norm_before_gate: bool, eps: float
) -> tuple[Tensor, Tensor]:
    """Arguments as of gated_norm; also an empty tensor in the place of a state."""
    kind = torch.promote_types(x.dtype, torch.float32)
    value, gate = x.to(kind), 1 if z is None else F.silu(z.to(kind))
    if not norm_before_gate:
        value = value * gate
    if groups == 1:
        value = F.rms_norm(value, value.shape[-1:], weight.to(kind), eps)
    else:
        value = value.unflatten(-1, (groups, -1))
        value = F.rms_norm(value, value.shape[-1:], None, eps).flatten(-2) * weight.to(kind)
    return (value * gate if norm_before_gate else value).to(x.dtype), x.new_empty(0)
