"""mamba_ssm's norms against PyTorch's, and sums written out."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from polymamba.compat.norms import (
    LayerNormFn,
    LayerNormGated,
    RMSNorm,
    RMSNormGated,
    layer_norm_fn,
    layer_norm_linear_fn,
    layer_norm_ref,
    rms_norm_fn,
    rms_norm_gated_ref,
    rms_norm_ref,
    rmsnorm_fn,
)
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
    with pytest.raises(UserError, match="rowscale"):
        function(x, weight, bias, x1=x, rowscale=scale)


@pytest.mark.parametrize("rms", [True, False])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_two_branches_and_two_norms(rms, with_bias, dtype):
    x, x1, residual = (normal(2, 5, 8, seed=seed).to(dtype).requires_grad_() for seed in range(3))
    weight, weight1, bias, bias1 = (normal(8, seed=seed) for seed in range(4, 8))
    bias, bias1 = (bias, bias1) if with_bias else (None, None)
    function, reference = (rms_norm_fn, rms_norm_ref) if rms else (layer_norm_fn, layer_norm_ref)
    given = (x, weight, bias, residual, x1, weight1, bias1, 1e-2)
    found = function(*given, prenorm=True)
    expected = reference(*given, prenorm=True, upcast=True)
    total = x.double() + x1.double() + residual.double()
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    for ours, theirs, exact in zip(
        found,
        expected,
        (plain(total, weight, bias, 1e-2, rms), plain(total, weight1, bias1, 1e-2, rms), total),
        strict=True,
    ):
        torch.testing.assert_close(ours.double(), exact, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(theirs.double(), exact, rtol=tolerance, atol=tolerance)
        assert ours.dtype == dtype
    wanted = torch.autograd.grad(expected[0].float().sum(), (x, x1, residual))
    for ours, theirs in zip(torch.autograd.grad(found[0].float().sum(), (x, x1, residual)), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


def test_masks_of_dropped_elements():
    torch.manual_seed(0)
    x, x1, weight = normal(50, 8), normal(50, 8, seed=1), normal(8, seed=2)
    y, total, mask, mask1 = rms_norm_fn(x, weight, x1=x1, dropout_p=0.25, prenorm=True, return_dropout_mask=True)
    assert 0.6 < mask.float().mean() < 0.9
    assert not torch.equal(mask, mask1)
    torch.testing.assert_close(total, (x * mask + x1 * mask1) / 0.75)
    options = {"dropout_p": 0.25, "dropout_mask": mask, "dropout_mask1": mask1, "prenorm": True}
    again, same = rms_norm_ref(x, weight, None, x1=x1, **options)
    torch.testing.assert_close((again, same), (y, total))


def test_arguments_stand_where_upstream_has_them():
    x, weight, bias, residual = normal(2, 8), normal(8, seed=1), normal(8, seed=2), normal(2, 8, seed=3)
    given = (x, weight, bias, residual, None, None, None, 1e-2, 0.0, None, True, True)
    for found, expected in (
        (layer_norm_fn(*given, True), rms_norm_fn(*given)),
        (LayerNormFn.apply(*given, True, True), rms_norm_fn(*given, True)),
    ):
        assert len(found) == len(expected)
        torch.testing.assert_close(found[:2], expected[:2], rtol=0, atol=0)


def test_norm_and_linear_layer():
    x, weight, matrix, bias = normal(2, 8), normal(8, seed=1), normal(3, 8, seed=2), normal(3, seed=3)
    y, total = layer_norm_linear_fn(x, weight, None, matrix, bias, x, prenorm=True, is_rms_norm=True)
    torch.testing.assert_close(y, F.linear(rms_norm_fn(2 * x, weight), matrix, bias))
    torch.testing.assert_close(total, 2 * x)


@pytest.mark.parametrize("gate_last", [True, False])
@pytest.mark.parametrize("group", [None, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_gated_norm_is_its_reference(gate_last, group, dtype):
    x, z = normal(2, 5, 8).to(dtype).requires_grad_(), normal(2, 5, 8, seed=1).to(dtype).requires_grad_()
    weight, bias = normal(8, seed=2).requires_grad_(), normal(8, seed=3).requires_grad_()
    tolerance = 1e-5 if dtype == torch.float32 else 5e-3
    given = {"z": z, "eps": 1e-2, "group_size": group, "norm_before_gate": gate_last}
    found = rmsnorm_fn(x, weight, bias, **given)
    wanted = torch.autograd.grad(found.float().square().sum(), (x, z, weight, bias))
    for upcast in (True, False):
        expected = rms_norm_gated_ref(x, weight, bias, **given, upcast=upcast)
        assert expected.dtype == dtype
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    gradients = torch.autograd.grad(
        rms_norm_gated_ref(x, weight, bias, **given).float().square().sum(), (x, z, weight, bias)
    )
    for ours, theirs in zip(wanted, gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2 * tolerance, atol=2 * tolerance)


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
