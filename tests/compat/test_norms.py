"""mamba_ssm's norms against PyTorch's, and sums written out."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from polymamba.compat.norms import LayerNormGated, RMSNorm, RMSNormGated, layer_norm_fn, rms_norm_fn
from polymamba.core.errors import UserError


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def plain(x, weight, bias, eps, rms):
    x = x.double()
    x = x if rms else x - x.mean(-1, keepdim=True)
    y = x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight.double()
    return y if bias is None else y + bias.double()


@pytest.mark.parametrize("rms", [True, False])
@pytest.mark.parametrize("with_bias", [True, False])
def test_sum_and_norm(rms, with_bias):
    x, residual, weight, scale = normal(2, 5, 8), normal(2, 5, 8, seed=1), normal(8, seed=2), normal(2, 5, seed=3)
    bias = normal(8, seed=4) if with_bias else None
    function = rms_norm_fn if rms else layer_norm_fn
    y, total = function(x, weight, bias, residual, eps=1e-2, rowscale=scale, prenorm=True)
    torch.testing.assert_close(total, x * scale[..., None] + residual)
    torch.testing.assert_close(y.double(), plain(total, weight, bias, 1e-2, rms), rtol=1e-5, atol=1e-5)
    alone = function(x, weight, bias, eps=1e-2)
    torch.testing.assert_close(alone.double(), plain(x, weight, bias, 1e-2, rms), rtol=1e-5, atol=1e-5)
    centred = function(x, weight - 1, bias, eps=1e-2, zero_centered_weight=True)
    torch.testing.assert_close(centred, alone)
    with pytest.raises(UserError, match="x1"):
        function(x, weight, bias, x1=x)


def test_dtypes_of_norm_and_residual():
    x, norm = normal(2, 5, 8).bfloat16(), RMSNorm(8, dtype=torch.bfloat16)
    y, total = norm(x, prenorm=True, residual_in_fp32=True)
    assert (y.dtype, total.dtype) == (torch.bfloat16, torch.float32)
    y, total = norm(x, normal(2, 5, 8, seed=1), prenorm=True)
    assert (y.dtype, total.dtype) == (torch.bfloat16, torch.float32)
    assert norm(x, prenorm=True)[1].dtype == torch.bfloat16


@pytest.mark.parametrize("group_size", [None, 4])
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("kind", [RMSNormGated, LayerNormGated])
def test_gated_norms(kind, before, group_size):
    norm, x, z = (
        kind(12, eps=1e-2, group_size=group_size, norm_before_gate=before),
        normal(2, 5, 12),
        normal(2, 5, 12, seed=1),
    )
    with torch.no_grad():
        for seed, parameter in enumerate(norm.parameters()):
            parameter.copy_(normal(12, seed=seed))
    assert set(norm.state_dict()) == ({"weight"} if kind is RMSNormGated else {"weight", "bias"})
    for gate in (z, None):
        given = x if gate is None or before else x * F.silu(z)
        parts = []
        for start in range(0, 12, group_size or 12):
            part = slice(start, start + (group_size or 12))
            bias = None if norm.bias is None else norm.bias[part]
            parts.append(plain(given[..., part], norm.weight[part], bias, 1e-2, kind is RMSNormGated))
        expected = torch.cat(parts, -1) * (F.silu(z).double() if gate is not None and before else 1)
        torch.testing.assert_close(norm(x, gate).double(), expected, rtol=1e-5, atol=1e-5)
