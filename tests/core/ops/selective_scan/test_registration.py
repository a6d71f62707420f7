"""The operators as PyTorch sees them: opcheck, compile, no saved states without gradients, linear memory."""

from __future__ import annotations

import pytest
import torch
from operators import selective_scan_call

from polymamba.core.ops.causal_conv1d import registration as conv_registration
from polymamba.core.ops.selective_scan import registration, selective_scan


def arguments(requires_grad=True):
    g = torch.Generator().manual_seed(0)
    shapes = [(2, 1, 9, 6), (2, 1, 9, 6), (2, 6, 3), (2, 1, 9, 1, 3), (2, 1, 9, 1, 3), (2, 6), (2, 9, 6), (2, 6)]
    tensors = [torch.rand(shape, generator=g) for shape in shapes]
    tensors[2] = -tensors[2]
    if requires_grad:
        tensors = [t.requires_grad_() for t in tensors]
    order = torch.stack([torch.arange(9), torch.arange(9).flip(0)])[None].int()
    state = torch.rand(2, 2, 6, 3, generator=g, requires_grad=requires_grad)
    return (*tensors, True, order, None, state, "sum", "cpu", requires_grad)


def test_opcheck_scan():
    torch.library.opcheck(registration._forward, arguments())


def test_opcheck_conv():
    x, weight, bias = (torch.rand(shape, requires_grad=True) for shape in [(2, 1, 9, 6), (2, 6, 4), (2, 6)])
    torch.library.opcheck(conv_registration._forward, (x, weight, bias, "silu", None, None, None, "cpu"))


def test_nothing_is_saved_without_gradients():
    out = registration._forward(*arguments(requires_grad=False))
    assert out[2].numel() == 0
    assert out[3].numel() == 0


def test_saved_memory_is_linear_in_length():
    from polymamba.core.ops.selective_scan import cpu

    def saved(length):
        return torch.Size(cpu.saved_shape(1, 1, length, 64, 1, 16)).numel()

    assert saved(8192) == 8 * saved(1024)
    assert saved(1024) <= 2 * 1024 * 64


@pytest.mark.slow
def test_compiles_without_graph_breaks():
    tensors, other = selective_scan_call(5)
    tensors = {name: t.requires_grad_() for name, t in tensors.items()}
    compiled = torch.compile(
        lambda **k: selective_scan(**k, **other, backend="cpu"), fullgraph=True, backend="aot_eager"
    )
    expected, found = selective_scan(**tensors, **other, backend="cpu"), compiled(**tensors)
    for a, b in zip(expected, found, strict=True):
        torch.testing.assert_close(a, b)
    grads = [torch.autograd.grad(out[0].sum() + out[1].sum(), list(tensors.values())) for out in (expected, found)]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)
