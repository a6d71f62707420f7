"""Root mean square norm, with a gate (Mamba-2, arXiv 2405.21060, section 7) or without, in one pass over each row and back.

reference.py defines it, cpu.py (Numba) computes it fast, registration.py makes it a PyTorch operator.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..arguments import check_shape
from ..backends import resolve
from .reference import gated_norm_reference
from .registration import gated_norm_op

__all__ = ["gated_norm", "gated_norm_reference"]


def gated_norm(
    x: Tensor,
    z: Tensor | None,
    weight: Tensor,
    groups: int = 1,
    norm_before_gate: bool = False,
    eps: float = 1e-5,
    backend: str = "auto",
) -> Tensor:
    """norm(x silu(z)) weight, or norm(x) weight silu(z); the mean square is that of each group of channels.

    Args:
        x, z: (..., channels), of shapes that broadcast; z None: there is no gate.
        weight: (channels,).
        groups: equal groups of neighbouring channels.
        norm_before_gate: normalise first, then gate.
        eps: added to the mean square.
        backend: "auto", "reference", "cpu" or "gpu"; there is a kernel for float32 on a CPU, all else is the reference.

    Returns:
        (..., channels) in x's dtype; computed in float32 at least.

    Raises:
        UserError: shapes that do not fit, a backend that cannot run.
    """
    check_shape("weight", weight, (x.shape[-1],))
    name, _ = resolve(x.device, x.dtype, backend, (x, z, weight))
    both = (x,) if z is None else (x, z)
    if name != "cpu" or any(t.dtype != torch.float32 or t.shape != x.shape for t in both) or not x.numel():
        return gated_norm_reference(x, z, weight, groups, norm_before_gate, eps)[0]
    return gated_norm_op(x, z, weight, groups, norm_before_gate, eps, name)[0]
