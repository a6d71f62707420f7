"""A few rows and large products against float64, and where PyTorch's own product is used."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from polymamba.core.ops import linear as ops
from polymamba.core.ops.linear import cpu, linear


@pytest.fixture
def calls(monkeypatch):
    """The shapes that went to the kernel."""
    seen, few_rows = [], cpu.few_rows
    monkeypatch.setattr(cpu, "few_rows", lambda x, *rest: (seen.append(tuple(x.shape)), few_rows(x, *rest))[1])
    return seen


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 4e-3)])
@pytest.mark.parametrize(
    ("shape", "outputs"), [((1, 1, 768), 3072), ((4, 96), 5), ((3, 1, 32), 1), ((2, 1, 2048), 700), ((1, 160), 64)]
)
def test_matches_float64(shape, outputs, dtype, tolerance, threads, calls):
    g = torch.Generator().manual_seed(outputs)
    x, weight = torch.randn(shape, generator=g).to(dtype), torch.randn(outputs, shape[-1], generator=g).to(dtype)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.no_grad():
            for bias in (None, torch.randn(outputs, generator=g).to(dtype)):
                y = linear(x, weight, bias)
                expected = F.linear(x.double(), weight.double(), None if bias is None else bias.double())
                assert y.dtype == dtype
                assert y.shape == expected.shape
                assert ((y - expected).norm() / expected.norm()).item() < tolerance
    finally:
        torch.set_num_threads(before)
    assert len(calls) == 2


def test_rows_that_do_not_lie_side_by_side(calls):
    both, weight = torch.randn(2, 1, 128), torch.randn(7, 64)
    with torch.no_grad():
        for x in (both[..., :64], both[..., ::2], both[..., 64:].bfloat16()):
            torch.testing.assert_close(linear(x, weight.to(x.dtype)), F.linear(x, weight.to(x.dtype)))
    assert len(calls) == 3


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch was built without oneDNN")
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("strided", [False, True])
def test_large_products_are_onednns(strided, bias, monkeypatch):
    seen, real = [], torch.ops.mkldnn._linear_pointwise
    monkeypatch.setattr(ops, "_onednn", lambda: lambda x, *rest: (seen.append(x.shape), real(x, *rest))[1])
    g = torch.Generator().manual_seed(0)
    x, weight = torch.randn(2, 300, 260, generator=g), torch.randn(130, 130, generator=g)
    x = x[..., ::2] if strided else x[..., :130]
    offset = torch.randn(130, generator=g) if bias else None
    monkeypatch.setattr(ops, "LARGE", x.numel() * 130)
    expected = F.linear(x.double(), weight.double(), None if offset is None else offset.double())
    with torch.no_grad():
        y = linear(x, weight, offset)
        assert ((y - expected).norm() / expected.norm()).item() < 2e-6
        assert torch.equal(y, linear(x, weight, offset))
        linear(x[:, 1:], weight, offset)
        linear(x, weight.t(), offset)
    linear(x, weight.requires_grad_(), offset).sum().backward()
    assert seen == [x.shape] * 2
    exact = x.double().sum((0, 1)).expand(130, -1)
    assert ((weight.grad - exact).norm() / exact.norm()).item() < 2e-6


@pytest.mark.parametrize("rows", [0, 5])
def test_many_rows_and_none_are_torchs(rows, calls):
    x, weight = torch.randn(rows, 64), torch.randn(7, 64)
    with torch.no_grad():
        assert torch.equal(linear(x, weight), F.linear(x, weight))
    assert not calls


class Quick(torch.nn.Linear):
    def forward(self, x):
        return linear(x, self.weight, self.bias)


def test_gradients_traces_transforms_and_autocast_are_torchs(calls):
    layer, x = Quick(64, 7), torch.randn(1, 64)
    layer(x).sum().backward()
    torch.testing.assert_close(layer.weight.grad, x.expand(7, -1))
    with torch.no_grad():
        assert torch.equal(torch.func.vmap(layer)(x[None])[0], F.linear(x, layer.weight, layer.bias))
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(x).dtype == torch.bfloat16
        assert linear(x[..., :60], layer.weight[:, :60]).shape == (1, 7)
        assert linear(x.double(), layer.weight.double()).dtype == torch.float64
        any_batch = ({0: torch.export.Dim("batch", min=1)},)
        exported = torch.export.export(layer, (torch.randn(5, 64),), dynamic_shapes=any_batch).module()
        for rows in (1, 3, 50):
            x = torch.randn(rows, 64)
            torch.testing.assert_close(exported(x), F.linear(x, layer.weight, layer.bias))
    assert not calls
    any_batch = ({0: torch.export.Dim("batch", min=1)},)
    torch.export.export(layer, (torch.randn(5, 64),), dynamic_shapes=any_batch).module()(torch.randn(60, 64))
    with pytest.raises(RuntimeError), torch.no_grad():
        linear(torch.randn(1, 32), layer.weight)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch was built without oneDNN")
@pytest.mark.parametrize("vendor", ["GenuineIntel", "AuthenticAMD"])
def test_intels_own_products_stay_with_mkl(vendor, monkeypatch):
    monkeypatch.setattr(ops.Path, "exists", lambda self: True)
    monkeypatch.setattr(ops.Path, "read_text", lambda self: f"vendor_id\t: {vendor}\n")
    assert (ops._onednn.__wrapped__() is None) == (vendor == "GenuineIntel")
