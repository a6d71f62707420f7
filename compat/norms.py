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
    is_rms_norm: bool = False,
    return_dropout_mask: bool = False,
    zero_centered_weight: bool = False,
) -> Tensor | tuple[Tensor | None, ...]:
    """norm(dropout(x) [+ dropout(x1)] [+ residual]), computed in float32.

    Args:
        x, x1, residual: (..., channels). rowscale: (...,), multiplies the rows of x; not with x1.
        weight, bias: (channels,); zero_centered_weight: one is added to the weights.
        weight1, bias1: (channels,), of a second norm of the same sum.
        prenorm: also return the sum, in float32 with residual_in_fp32.
        return_dropout_mask: also return which elements of x and of x1 were kept, None where nothing is dropped.

    Returns:
        (..., channels) in x's dtype; then, each where asked for, the second norm, the sum, the two masks.
    """
    if x1 is not None and rowscale is not None:
        raise UserError("rowscale is not offered with x1", do="multiply the rows of x first")
    scaled = x if rowscale is None else x * rowscale[..., None].to(x.dtype)
    parts = [part for part in (scaled, x1) if part is not None]
    masks = [None if dropout_p == 0 else torch.rand(part.shape, device=part.device) >= dropout_p for part in parts]
    parts = [_dropped(part, mask, dropout_p) for part, mask in zip(parts, masks, strict=True)]
    parts += [] if residual is None else [residual]
    total = parts[0] if len(parts) == 1 else sum(part.float() for part in parts)
    dtype = x.dtype if residual is None else residual.dtype
    found = [_normed(total, weight, bias, eps, is_rms_norm, zero_centered_weight).to(x.dtype)]
    if weight1 is not None:
        found.append(_normed(total, weight1, bias1, eps, is_rms_norm, zero_centered_weight).to(x.dtype))
    if prenorm:
        found.append(total.to(torch.float32 if residual_in_fp32 else dtype))
    if return_dropout_mask:
        found += [*masks, None][:2]
    return found[0] if len(found) == 1 else tuple(found)


def rms_norm_fn(
    x, weight, bias=None, residual=None, x1=None, weight1=None, bias1=None, eps=1e-6, dropout_p=0.0, rowscale=None, prenorm=False,
    residual_in_fp32=False, return_dropout_mask=False, zero_centered_weight=False,
):  # fmt: skip
    """layer_norm_fn without the mean."""
    return layer_norm_fn(
        x, weight, bias, residual, x1, weight1, bias1, eps, dropout_p, rowscale, prenorm, residual_in_fp32, True,
        return_dropout_mask, zero_centered_weight,
    )  # fmt: skip


def layer_norm_ref(
    x, weight, bias, residual=None, x1=None, weight1=None, bias1=None, eps=1e-6, dropout_p=0.0, rowscale=None, prenorm=False,
    dropout_mask=None, dropout_mask1=None, upcast=False, rms=False,
):  # fmt: skip
    """layer_norm_fn from the definition, in x's dtype, or with upcast in float32; the sum is returned in that dtype."""
    dtype = torch.float32 if upcast else x.dtype
    total = x.to(dtype) if rowscale is None else x.to(dtype) * rowscale[..., None].to(dtype)
    total = _dropped(total, dropout_mask, dropout_p)
    total = total if x1 is None else total + _dropped(x1.to(dtype), dropout_mask1, dropout_p)
    total = total if residual is None else (total + residual.to(torch.promote_types(dtype, residual.dtype))).to(dtype)
    found = []
    for scale, offset in ((weight, bias), (weight1, bias1)):
        if scale is not None:
            centred = total if rms else total - total.mean(-1, keepdim=True)
            y = centred * torch.rsqrt(centred.square().mean(-1, keepdim=True) + eps) * scale
            found.append((y if offset is None else y + offset).to(x.dtype))
    found += [total] if prenorm else []
    return found[0] if len(found) == 1 else tuple(found)


def rms_norm_ref(*arguments, **options):
    """layer_norm_ref without the mean."""
    return layer_norm_ref(*arguments, **options, rms=True)


def layer_norm_linear_fn(
    x, norm_weight, norm_bias, linear_weight, linear_bias, residual=None, eps=1e-6, prenorm=False, residual_in_fp32=False,
    is_rms_norm=False,
):  # fmt: skip
    """layer_norm_fn and a linear layer; with prenorm also the sum."""
    y, total = layer_norm_fn(
        x,
        norm_weight,
        norm_bias,
        residual,
        eps=eps,
        prenorm=True,
        residual_in_fp32=residual_in_fp32,
        is_rms_norm=is_rms_norm,
    )
    y = F.linear(y, linear_weight.to(y.dtype), None if linear_bias is None else linear_bias.to(y.dtype))
    return (y, total) if prenorm else y


class LayerNormFn:
    """layer_norm_fn as upstream's own class is called."""

    apply = staticmethod(layer_norm_fn)


class LayerNormLinearFn:
    """layer_norm_linear_fn as upstream's own class is called."""

    apply = staticmethod(layer_norm_linear_fn)


def _dropped(t: Tensor, mask: Tensor | None, share: float) -> Tensor:
    if share == 0:
        return t
    return F.dropout(t, share) if mask is None else t * mask / (1 - share)


def _normed(total: Tensor, weight: Tensor, bias: Tensor | None, eps: float, rms: bool, zero_centred: bool) -> Tensor:
    """The norm over the last axis, in float32."""
    scale = weight.float() + 1 if zero_centred else weight.float()
    offset = None if bias is None else bias.float()
    if not rms:
        return F.layer_norm(total.float(), weight.shape, scale, offset, eps)
    y = F.rms_norm(total.float(), weight.shape, scale, eps)
    return y if offset is None else y + offset


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


def rms_norm_gated_ref(
    x, weight, bias, z=None, eps=1e-6, group_size=None, norm_before_gate=True, upcast=True
) -> Tensor:
    """rmsnorm_fn from the definition, in float32, or without upcast in x's dtype as far as the weight allows."""
    y, gate = (t if t is None or not upcast else t.float() for t in (x, z))
    gate = None if gate is None else F.silu(gate)
    if gate is not None and not norm_before_gate:
        y, gate = y * gate, None
    grouped = y.unflatten(-1, (-1, group_size or y.shape[-1]))
    grouped = grouped * torch.rsqrt(grouped.square().mean(-1, keepdim=True) + eps)
    y = grouped.flatten(-2) * weight.float()
    y = y if bias is None else y + bias.float()
    return (y if gate is None else y * gate).to(x.dtype)


def layernorm_fn(
    x, weight, bias=None, z=None, eps=1e-6, group_size=None, norm_before_gate=True, is_rms_norm=False
) -> Tensor:
    """Gated layer norm; arguments as rmsnorm_fn's."""
    return _gated(x, weight, bias, z, eps, group_size, norm_before_gate, rms=is_rms_norm)


class LayerNormGatedFn:
    """layernorm_fn as upstream's own class is called."""

    apply = staticmethod(layernorm_fn)


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
