"""Names that copies of mamba_ssm's modules import at their top: determinism, which is always on here, and tensor parallel
layers, which are not offered and say so where they are made."""

from __future__ import annotations

import functools

import torch

from ..core.errors import UserError

custom_fwd = functools.partial(torch.amp.custom_fwd, device_type="cuda")
custom_bwd = functools.partial(torch.amp.custom_bwd, device_type="cuda")


def set_deterministic_mode(value: bool | None) -> None:
    """Nothing to set: the kernels' gradients repeat bit for bit."""


def use_deterministic_mode() -> bool:
    """True."""
    return True


def _not_offered(*_, **__):
    raise UserError("tensor parallel layers are not offered", given="process_group", allowed="process_group=None")


ColumnParallelLinear = RowParallelLinear = all_reduce = all_gather = reduce_scatter = _not_offered
