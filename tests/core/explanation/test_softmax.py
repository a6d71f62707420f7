"""Attention: the matrices are its own weights."""

import pytest
import torch
from torch.nn import functional as F

from polymamba.core.explanation import hidden_attention, mean_hidden_attention
from polymamba.core.mixers import Attention

DOUBLE = {"dtype": torch.float64}
KINDS = {
    "plain": {},
    "grouped, turning": {"num_heads_kv": 2, "rotary_fraction": 0.5, "softmax_scale": 0.7, "head_dim": 6},
    "convolved": {"d_conv": 3, "num_heads_kv": 1, "qkv_bias": True, "rotary_fraction": 1.0, "rotary_interleaved": True},
    "not causal": {"causal": False, "num_heads_kv": 2},
}
PACKED = torch.tensor([[-1, -1, 0, 0, 0, 3, 3, 3], [1, 1, 1, 1, 1, 2, -1, -1]])


def mixer(kind):
    torch.manual_seed(0)
    made = Attention(16, 4, **KINDS[kind], **DOUBLE)
    with torch.no_grad():
        made.in_proj.weight.mul_(3)
    return made


def tokens(batch, length):
    return torch.randn(batch, length, 16, generator=torch.Generator().manual_seed(1), **DOUBLE)


def answers(made, x, seq_idx=None):
    """What PyTorch's attention says to a one at one token and zeros elsewhere."""
    given, length = made.select(x, None, None, seq_idx), x.shape[1]
    one = torch.eye(length, **DOUBLE).expand(x.shape[0], made.num_heads_kv, length, length)
    query, key = given.query.transpose(1, 2), given.key.transpose(1, 2)
    causal = made.causal and given.mask is None
    return F.scaled_dot_product_attention(
        query, key, one, given.mask, is_causal=causal, scale=made.softmax_scale, enable_gqa=True
    )


def rebuilt(made, x, matrix, seq_idx=None):
    value = made.select(x, None, None, seq_idx).value.repeat_interleave(made.num_heads // made.num_heads_kv, 2)
    return made.out_proj(torch.einsum("bhij,bjhc->bihc", matrix, value).flatten(2))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [1, 2, 9])
def test_are_the_weights(kind, length):
    made, x = mixer(kind), tokens(2, length)
    found = hidden_attention(made, x)
    assert found.shape == (2, 4, length, length)
    torch.testing.assert_close(found, answers(made, x), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(rebuilt(made, x, found), made(x)[0], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.sum(-1), torch.ones(2, 4, length, **DOUBLE))
    assert (found > 0).sum() == 2 * 4 * (length * (length + 1) // 2 if made.causal else length**2)
    assert not made.causal or not found.triu(1).any()
    assert torch.equal(hidden_attention(made, x, merge="none"), found[:, None])


@pytest.mark.parametrize("kind", KINDS)
def test_packed_and_padded(kind):
    made, x = mixer(kind), tokens(2, 8)
    found = hidden_attention(made, x, seq_idx=PACKED)
    torch.testing.assert_close(found, answers(made, x, PACKED), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(rebuilt(made, x, found, PACKED), made(x, seq_idx=PACKED)[0], rtol=1e-9, atol=1e-12)
    together = (PACKED[:, :, None] == PACKED[:, None]) & (PACKED >= 0)[:, None]
    # What padding says is read by nobody; it sees itself, so that its row sums to one.
    together = together | (torch.eye(8, dtype=torch.bool) & (PACKED < 0)[:, None])
    together = together.tril() if made.causal else together
    assert torch.equal(found.sum(1) > 0, together)


def test_blocks_change_nothing(monkeypatch):
    made, x = mixer("grouped, turning"), tokens(2, 7)
    whole = hidden_attention(made, x)
    monkeypatch.setattr("polymamba.core.explanation.matrices.NUMBERS", 3 * 2 * 49)
    torch.testing.assert_close(hidden_attention(made, x), whole)
    torch.testing.assert_close(mean_hidden_attention(made, x), whole.mean(1))


def test_half_precision_is_weighed_in_float32():
    made = mixer("plain").bfloat16()
    found = hidden_attention(made, tokens(1, 9).bfloat16())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.sum(-1), torch.ones(1, 4, 9))
