"""Mamba-3's way out of the scan: each row of a step gated by what z says of it, the rows summed; in one pass and back.

reference.py defines it, cpu.py (Numba) computes it fast, registration.py makes it a PyTorch operator.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..arguments import check_shape
from ..backends import resolve
from .reference import gated_sum_reference
from .registration import gated_sum_op

__all__ = ["gated_sum", "gated_sum_reference"]


def gated_sum(
    y: Tensor, z: Tensor, z_scale: Tensor | None = None, y_scale: Tensor | None = None, backend: str = "auto"
) -> Tensor:
    """The sum over rows r of y_r silu(z z_scale_r) y_scale_r (arXiv 2603.15569, MIMO; one row and no scales: SISO).

    Args:
        y: (batch, paths, length, rank, channels).
        z: (batch, length, channels).
        z_scale, y_scale: (rank, channels), both or neither.
        backend: "auto", "reference", "cpu" or "gpu"; there is a kernel for float32 on a CPU, all else is the reference.

    Returns:
        (batch, paths, length, channels), in z's dtype.

    Raises:
        UserError: shapes that do not fit, a backend that cannot run.
    """
    batch, _, length, rank, channels = y.shape
    check_shape("z", z, (batch, length, channels), note="")
    check_shape("z_scale", z_scale, (rank, channels), note="")
    check_shape("y_scale", y_scale, (rank, channels), note="")
    given = (y, z, z_scale, y_scale)
    name, _ = resolve(y.device, y.dtype, backend, given)
    if name != "cpu" or any(t is not None and t.dtype != torch.float32 for t in given) or not y.numel():
        return gated_sum_reference(*given)[0]
    return gated_sum_op(*given, name)[0]
