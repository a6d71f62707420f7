"""causal_conv1d's functions: against conv1d, and token by token against all at once."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn import functional as F

from polymamba.compat.convolution import causal_conv1d_fn, causal_conv1d_update, causal_conv1d_varlen_states
from polymamba.core.errors import UserError


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


@pytest.mark.parametrize("activation", [None, "silu", "swish"])
@pytest.mark.parametrize("width", [2, 3, 4, 6])
def test_whole_sequences_with_states(width, activation):
    x, weight, bias, before = normal(2, 5, 17), normal(5, width), normal(5), normal(2, 5, width - 1, seed=1)
    kept = torch.empty(2, 5, width - 1)
    y, state = causal_conv1d_fn(
        x, weight, bias, initial_states=before, return_final_states=True, final_states_out=kept, activation=activation
    )
    expected = F.conv1d(torch.cat([before, x], -1), weight[:, None], bias, groups=5)
    torch.testing.assert_close(y, F.silu(expected) if activation else expected)
    torch.testing.assert_close(state, x[..., -(width - 1) :])
    assert torch.equal(kept, state)


@pytest.mark.parametrize("kept", [3, 4, 7])
@pytest.mark.parametrize("ring", [False, True])
@pytest.mark.parametrize("pieces", [[1] * 12, [3, 1, 5, 2, 1]])
@pytest.mark.parametrize("recorded", [False, True])
def test_updates_say_what_the_whole_says(kept, ring, pieces, recorded):
    x, weight, bias = normal(2, 5, 12), normal(5, 4), normal(5)
    state, seen, found = torch.zeros(2, 5, kept), torch.zeros(2, dtype=torch.int32), []
    for piece in x.split(pieces, -1):
        with torch.set_grad_enabled(recorded):
            found.append(causal_conv1d_update(piece, state, weight, bias, "silu", cache_seqlens=seen if ring else None))
        seen += piece.shape[-1]
    torch.testing.assert_close(torch.cat(found, -1), causal_conv1d_fn(x, weight, bias, activation="silu"))
    if ring:
        state = state.gather(2, ((12 + torch.arange(-kept, 0)) % kept).expand(2, 5, -1))
    torch.testing.assert_close(state, x[..., -kept:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("activation", [None, "silu"])
def test_one_token_is_the_same_with_and_without_gradients(dtype, activation):
    x, weight, bias = (t.to(dtype) for t in (normal(2, 37), normal(37, 4), normal(37)))
    kept, moved = normal(2, 37, 4, seed=2), normal(2, 37, 4, seed=2)
    expected = causal_conv1d_update(x, kept, weight, bias, activation)
    with torch.no_grad():
        found = causal_conv1d_update(x, moved, weight, bias, activation)
    assert found.dtype == dtype
    torch.testing.assert_close(found, expected)
    assert torch.equal(moved, kept)


def test_one_token_without_an_axis_and_slots():
    x, weight, state = normal(3, 5), normal(5, 4), normal(4, 5, 3, seed=2)
    before = state.clone()
    y = causal_conv1d_update(x, state, weight, conv_state_indices=torch.tensor([2, -1, 0], dtype=torch.int32))
    assert y.shape == (3, 5)
    for row, slot in ((0, 2), (2, 0)):
        inputs = torch.cat([before[slot], x[row, :, None]], -1)
        torch.testing.assert_close(y[row], (inputs * weight).sum(-1))
        torch.testing.assert_close(state[slot], inputs[:, 1:])
    assert torch.equal(state[[1, 3]], before[[1, 3]])


def test_errors():
    with pytest.raises(UserError, match="gelu"):
        causal_conv1d_fn(normal(1, 2, 3), normal(2, 4), activation="gelu")
    with pytest.raises(UserError, match="too short"):
        causal_conv1d_update(normal(1, 2), torch.zeros(1, 2, 2), normal(2, 4))


def test_last_inputs_of_packed_sequences():
    x, cu = normal(11, 5), torch.tensor([0, 2, 8, 8, 11], dtype=torch.int32)
    found = causal_conv1d_varlen_states(x, cu, 3)
    for row, (begin, end) in enumerate(itertools.pairwise(cu.tolist())):
        assert torch.equal(found[row], F.pad(x[begin:end].T, (3, 0))[:, -3:])
