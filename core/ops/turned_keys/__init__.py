"""Mamba-3's B and C on their way to the scan: a bias for each head, then pairs of states turn by an angle; in one pass and back.

reference.py defines it, cpu.py (Numba) computes it fast, registration.py makes it a PyTorch operator.
"""

from __future__ import annotations

from torch import Tensor

from ...errors import check_choice
from ..arguments import check_groups, check_shape
from ..backends import resolve
from .reference import turn, turned_keys_reference
from .registration import turned_keys_op

__all__ = ["ROTATIONS", "turn", "turned_keys", "turned_keys_reference"]

ROTATIONS = ("pairs", "halves")


def turned_keys(
    B: Tensor,
    C: Tensor,
    B_bias: Tensor,
    C_bias: Tensor,
    angle: Tensor,
    rotation: str = "pairs",
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """B and C for each head, with its bias, turned (arXiv 2603.15569).

    Args:
        B, C: (batch, length, rank, groups, states); heads are split evenly over groups.
        B_bias, C_bias: (heads, rank, states).
        angle: (batch, paths, length, heads, pairs), radians, for at most states / 2 pairs; the other states do not turn.
        rotation: see turn.
        backend: "auto", "reference", "cpu" or "gpu"; there is a kernel for float32 on a CPU, all else is the reference.

    Returns:
        both, (batch, paths, length, rank, heads, states), in B's dtype.

    Raises:
        UserError: shapes that do not fit, an unknown rotation, a backend that cannot run.
    """
    check_choice("rotation", rotation, ROTATIONS)
    batch, length, rank, groups, states = B.shape
    heads = B_bias.shape[0]
    check_shape("C", C, tuple(B.shape), note="")
    check_shape("B_bias", B_bias, (heads, rank, states), note="")
    check_shape("C_bias", C_bias, (heads, rank, states), note="")
    check_shape("angle", angle, (batch, None, length, heads, None), note="")
    check_groups(heads, groups, "heads")
    given = (B, C, B_bias, C_bias, angle)
    name, _ = resolve(B.device, B.dtype, backend, given)
    halves = rotation == "halves"
    if (
        name != "cpu"
        or any(t.dtype != B.dtype for t in given)
        or B.dtype.itemsize != 4
        or not (B.numel() and angle.numel())
    ):
        return turned_keys_reference(*given, halves)
    return turned_keys_op(*given, halves, name)
