"""The definition itself: equal to PyTorch's convolution, gradcheck, packing."""

from __future__ import annotations

import pytest
import torch
from operators import causal_conv1d_call

from polymamba.core.ops.causal_conv1d import causal_conv1d


@pytest.mark.parametrize("width", [1, 2, 4, 7])
def test_equals_conv1d(width):
    x, weight, bias = torch.randn(2, 13, 5), torch.randn(5, width), torch.randn(5)
    padded = torch.nn.functional.pad(x.transpose(1, 2), (width - 1, 0))
    expected = torch.nn.functional.conv1d(padded, weight[:, None], bias, groups=5).transpose(1, 2)
    torch.testing.assert_close(causal_conv1d(x, weight, bias, backend="reference"), expected)


def test_packed_equals_separate():
    x, weight = torch.randn(1, 12, 3), torch.randn(3, 4)
    seq_idx = torch.tensor([[0, 0, 0, 0, 0, 1, 1, 2, 2, 2, 2, 2]])
    packed = causal_conv1d(x, weight, seq_idx=seq_idx, backend="reference")
    separate = [
        causal_conv1d(x[:, part], weight, backend="reference") for part in (slice(0, 5), slice(5, 7), slice(7, 12))
    ]
    torch.testing.assert_close(packed, torch.cat(separate, 1))


def test_taps_follow_the_path():
    x, weight = torch.randn(1, 6, 2), torch.randn(2, 3)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    walked = causal_conv1d(x[:, order], weight, backend="reference")
    assert torch.equal(causal_conv1d(x, weight, order=order[None], backend="reference")[:, order], walked)


@pytest.mark.parametrize("seed", range(12))
def test_gradcheck(seed):
    tensors, other = causal_conv1d_call(seed, longest=7, paths=3)
    names = list(tensors)
    inputs = [tensors[name].double().requires_grad_() for name in names]

    def call(*values):
        return causal_conv1d(**dict(zip(names, values, strict=True)), **other, backend="reference")

    assert torch.autograd.gradcheck(call, inputs, fast_mode=True)
