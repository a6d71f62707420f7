"""mamba_ssm's normalisations: added to the residual, and gated (ops/triton/layer_norm.py, layernorm_gated.py)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.errors import UserError


def layer_norm_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    x1: Tensor | None = None,
    weight1: Tensor | None = None,
    bias1: Tensor | None = None,
    eps: float = 1e-6,
    dropout_p: float = 0.0,
    rowscale: Tensor | None = None,
    prenorm: bool = False,
    residual_in_fp32: bool = False,
    zero_centered_weight: bool = False,
    is_rms_norm: bool = False,
    return_dropout_mask: bool = False,
) -> Tensor | tuple[Tensor, ...]:
    """norm(dropout(x) [+ residual]), computed in float32.

    Args:
        x, residual: (..., channels). rowscale: (...,), multiplies the rows of x.
        weight, bias: (channels,); zero_centered_weight: one is added to the weight.
        prenorm: also return the sum, in float32 with residual_in_fp32.

    Returns:
        (..., channels) in x's dtype, with prenorm also the sum.
    """
    for name, given in (
        ("x1", x1),
        ("weight1", weight1),
        ("bias1", bias1),
        ("return_dropout_mask", return_dropout_mask),
    ):
        if given is not None and given is not False:
            raise UserError(f"{name} (two branches in one norm) is not offered", do="call the function once a branch")
    scaled = x if rowscale is None else x * rowscale[..., None].to(x.dtype)
    scaled = F.dropout(scaled, dropout_p) if dropout_p > 0 else scaled
    total = scaled if residual is None else scaled.float() + residual.float()
    kept = total.float() if residual_in_fp32 else total.to(x.dtype if residual is None else residual.dtype)
    scale = weight.float() + 1 if zero_centered_weight else weight.float()
    offset = None if bias is None else bias.float()
    if is_rms_norm:
        y = F.rms_norm(total.float(), weight.shape, scale, eps)
        y = y if offset is None else y + offset
    else:
        y = F.layer_norm(total.float(), weight.shape, scale, offset, eps)
    y = y.to(x.dtype)
    return (y, kept) if prenorm else y


def rms_norm_fn(x, weight, bias=None, *arguments, **options):
    """layer_norm_fn without the mean."""
    return layer_norm_fn(x, weight, bias, *arguments, is_rms_norm=True, **options)


class RMSNorm(nn.Module):
    """Root mean square norm of (..., channels) with the sum of the residual stream (mamba_ssm's layer_norm.RMSNorm)."""

    def __init__(self, hidden_size, eps=1e-5, dropout_p=0.0, zero_centered_weight=False, device=None, dtype=None):
        super().__init__()
        self.eps, self.dropout_p, self.zero_centered_weight = eps, dropout_p, zero_centered_weight
        start = torch.zeros if zero_centered_weight else torch.ones
        self.weight = nn.Parameter(start(hidden_size, device=device, dtype=dtype))
        self.register_parameter("bias", None)

    def forward(self, x, residual=None, prenorm=False, residual_in_fp32=False):
        return rms_norm_fn(
            x, self.weight, None, residual, eps=self.eps, dropout_p=self.dropout_p if self.training else 0.0, prenorm=prenorm,
            residual_in_fp32=residual_in_fp32, zero_centered_weight=self.zero_centered_weight,
        )  # fmt: skip


def rmsnorm_fn(x, weight, bias=None, z=None, eps=1e-6, group_size=None, norm_before_gate=True) -> Tensor:
    """Gated RMSNorm: norm(x) * silu(z), or norm(x * silu(z)) where the gate comes first; over groups of channels.

    Args:
        x, z: (..., channels). weight, bias: (channels,).
        group_size: channels that are normalised together; None: all.
    """
    return _gated(x, weight, bias, z, eps, group_size, norm_before_gate, rms=True)


def layernorm_fn(
    x, weight, bias=None, z=None, eps=1e-6, group_size=None, norm_before_gate=True, is_rms_norm=False
) -> Tensor:
    """Gated layer norm; arguments as rmsnorm_fn's."""
    return _gated(x, weight, bias, z, eps, group_size, norm_before_gate, rms=is_rms_norm)


def _gated(x, weight, bias, z, eps, group_size, norm_before_gate, rms) -> Tensor:
    y = x.float()
    gate = None if z is None else F.silu(z.float())
    if gate is not None and not norm_before_gate:
        y = y * gate
    grouped = y.unflatten(-1, (-1, group_size or y.shape[-1]))
    normal = F.rms_norm if rms else F.layer_norm
    y = normal(grouped, grouped.shape[-1:], eps=eps).flatten(-2) * weight.float()
    y = y if bias is None else y + bias.float()
    if gate is not None and norm_before_gate:
        y = y * gate
    return y.to(x.dtype)


class RMSNormGated(nn.Module):
    """mamba_ssm's layernorm_gated.RMSNorm: (..., channels) and a gate of that shape."""

    def __init__(self, hidden_size, eps=1e-5, group_size=None, norm_before_gate=True, device=None, dtype=None):
        super().__init__()
        self.eps, self.group_size, self.norm_before_gate = eps, group_size, norm_before_gate
        self.weight = nn.Parameter(torch.ones(hidden_size, device=device, dtype=dtype))
        self.register_parameter("bias", None)

    def forward(self, x, z=None):
        return rmsnorm_fn(x, self.weight, None, z, self.eps, self.group_size, self.norm_before_gate)


class LayerNormGated(nn.Module):
    """mamba_ssm's layernorm_gated.LayerNorm: the same with a mean and a bias."""

    def __init__(self, hidden_size, eps=1e-5, group_size=None, norm_before_gate=True, device=None, dtype=None):
        super().__init__()
        self.eps, self.group_size, self.norm_before_gate = eps, group_size, norm_before_gate
        self.weight = nn.Parameter(torch.ones(hidden_size, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(hidden_size, device=device, dtype=dtype))

    def forward(self, x, z=None):
        return layernorm_fn(x, self.weight, self.bias, z, self.eps, self.group_size, self.norm_before_gate)
