"""The operator as PyTorch sees it: opcheck, compile, no saved states without gradients, linear memory."""

from __future__ import annotations

import pytest
import torch
from dualities import dense_duality_call, state_space_duality_call

from polymamba.core.ops.state_space_duality import cpu, registration, state_space_duality


def arguments(seed=0, requires_grad=True):
    tensors, other = dense_duality_call(seed, longest=9)
    tensors = {n: t if t is None else t.requires_grad_(requires_grad) for n, t in tensors.items()}
    *first, state, skip = tensors.values()
    return (*first, other["restart"], state, other["rank"], skip, "cpu", requires_grad)


@pytest.mark.parametrize("seed", range(4))
def test_opcheck(seed):
    torch.library.opcheck(registration._forward, arguments(seed))


def test_nothing_is_saved_without_gradients():
    assert registration._forward(*arguments(requires_grad=False))[2].numel() == 0


def test_saved_memory_is_linear_in_length():
    def saved(length, rank=1):
        return torch.Size(cpu.saved_shape(1, length, 24, 64, 1, 128, rank)).numel()

    assert saved(8192) == 8 * saved(1024)
    assert saved(1024) <= 2 * 1024 * 24 * 64
    assert saved(1024, 4) <= 2 * 4 * 1024 * 24 * 64


@pytest.mark.slow
@pytest.mark.parametrize("seed", [5, 8, 11])
def test_compiles_without_graph_breaks(seed):
    tensors, other = state_space_duality_call(seed, longest=70)
    tensors = {name: t.requires_grad_() for name, t in tensors.items()}
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda **k: state_space_duality(**k, **other, backend="cpu"), fullgraph=True, backend="aot_eager"
    )
    expected, found = state_space_duality(**tensors, **other, backend="cpu"), compiled(**tensors)
    torch.testing.assert_close(found, expected)
    grads = [torch.autograd.grad(out[0].sum() + out[1].sum(), list(tensors.values())) for out in (expected, found)]
    torch.testing.assert_close(*grads)
