import itertools
import math

import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.core.mixers.attention import Attention
from polymamba.core.mixers.rotary import rotate
from polymamba.core.packing import seq_idx_from_lengths
from polymamba.core.scans import Grid

DOUBLE = {"dtype": torch.float64}
OPTIONS = [
    {}, {"num_heads_kv": 2, "rotary_fraction": 1.0}, {"num_heads_kv": 1, "rotary_fraction": 0.5, "head_dim": 6},
    {"qkv_bias": True, "out_bias": True, "rotary_fraction": 0.5, "rotary_interleaved": True},
    {"d_conv": 4, "num_heads_kv": 2, "rotary_fraction": 1.0}, {"mlp_dim": 250, "d_conv": 3, "num_heads_kv": 2},
]  # fmt: skip
CAUSAL_OR_NOT = [*OPTIONS, {"causal": False}, {"causal": False, "rotary_fraction": 1.0, "num_heads_kv": 2}]


def mixer(num_heads=4, **options):
    torch.manual_seed(0)
    return Attention(16, num_heads, **options, **DOUBLE)


def tokens(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), **DOUBLE)


def turned(row, position, made):
    """One head's channels turned, as a complex product."""
    size, out = made.rotary_size, row.clone()
    for i in range(size // 2):
        at = (2 * i, 2 * i + 1) if made.rotary_interleaved else (i, i + size // 2)
        angle = position * made.rotary_base ** (-2 * i / size)
        number = complex(row[at[0]], row[at[1]]) * complex(math.cos(angle), math.sin(angle))
        out[at[0]], out[at[1]] = number.real, number.imag
    return out


def written_out(made, x):
    """(length, d_model): one token and one head at a time."""
    qkv, up, gate = made.in_proj(x).split([made.in_proj.out_features - made.mlp_dim, *[made.mlp_dim // 2] * 2], -1)
    if made.conv1d is not None:
        width = made.conv1d.kernel_size[0]
        rows = torch.cat([x.new_zeros(width - 1, qkv.shape[1]), qkv])
        qkv = torch.stack([(rows[t : t + width].T * made.conv1d.weight[:, 0]).sum(1) for t in range(len(x))])
        qkv = qkv + made.conv1d.bias
    heads, shared, size = made.num_heads, made.num_heads // made.num_heads_kv, made.head_dim
    q, k, v = qkv.detach().unflatten(-1, (-1, size)).split([heads, made.num_heads_kv, made.num_heads_kv], 1)
    y = torch.zeros(len(x), heads, size, **DOUBLE)
    for t, h in itertools.product(range(len(x)), range(heads)):
        seen = range(t + 1) if made.causal else range(len(x))
        query = turned(q[t, h], t, made)
        scores = torch.stack([query @ turned(k[s, h // shared], s, made) for s in seen]) / math.sqrt(size)
        y[t, h] = sum(p * v[s, h // shared] for p, s in zip(scores.softmax(0), seen, strict=True))
    return made.out_proj(torch.cat([y.flatten(1), up * torch.nn.functional.silu(gate)], -1))


@pytest.mark.parametrize("options", CAUSAL_OR_NOT)
def test_equals_attention_written_out(options):
    made, x = mixer(**options), tokens(2, 7, 16)
    expected = torch.stack([written_out(made, row) for row in x])
    torch.testing.assert_close(made(x)[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("interleaved", [False, True])
def test_scores_of_turned_heads_depend_on_the_distance_alone(interleaved):
    q, k = tokens(1, 1, 2, 8), tokens(1, 1, 2, 8, seed=2)

    def score(at, other):
        position = (torch.tensor([[at]]), torch.tensor([[other]]))
        return (rotate(q, position[0], 6, 100.0, interleaved) * rotate(k, position[1], 6, 100.0, interleaved)).sum()

    torch.testing.assert_close(score(9, 4), score(105, 100), rtol=1e-5, atol=1e-5)
    assert abs(score(9, 4) - score(9, 5)) > 1e-3
    assert torch.equal(rotate(q, torch.tensor([[5]]), 6)[..., 6:], q[..., 6:])
    torch.testing.assert_close(rotate(q, torch.tensor([[0]]), 6), q)


@pytest.mark.parametrize("options", OPTIONS)
def test_random_pieces_equal_the_whole_with_gradients(options):
    made, x = mixer(**options), tokens(2, 23, 16).requires_grad_()
    whole, end = made(x)
    weight = tokens(*whole.shape, seed=3)
    inputs = [x, *made.parameters()]
    expected = torch.autograd.grad((whole * weight).sum(), inputs)
    generator = torch.Generator().manual_seed(4)
    for count in (1, 5, 60):
        cuts = sorted({0, 23, *torch.randint(1, 23, (count,), generator=generator).tolist()})
        state, rows = None, []
        for begin, stop in itertools.pairwise(cuts):
            y, state = made(x[:, begin:stop], state=state)
            rows.append(y)
        found = torch.cat(rows, 1)
        torch.testing.assert_close(found, whole)
        torch.testing.assert_close((state.key, state.value), (end.key, end.value))
        torch.testing.assert_close(torch.autograd.grad((found * weight).sum(), inputs), expected)


@pytest.mark.parametrize("options", CAUSAL_OR_NOT)
def test_packed_sequences_equal_separate_ones(options):
    made, lengths = mixer(**options), [5, 1, 7]
    parts = [tokens(1, length, 16, seed=length) for length in lengths]
    number = torch.repeat_interleave(torch.tensor([3, 0, 3]), torch.tensor(lengths))[None]
    separate = torch.cat([made(part)[0] for part in parts], 1)
    torch.testing.assert_close(made(torch.cat(parts, 1), seq_idx=number)[0], separate)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("options", CAUSAL_OR_NOT)
def test_padded_rows_equal_unpadded_ones(options, side):
    made, x = mixer(**options), tokens(3, 9, 16)
    seq_idx = seq_idx_from_lengths(torch.tensor([4, 9, 0]), side=side)
    real = seq_idx >= 0
    padded, _ = made(x, seq_idx=seq_idx)
    assert padded.isfinite().all()
    expected = torch.cat([made(row[here][None])[0][0] for row, here in zip(x[:2], real, strict=False)])
    torch.testing.assert_close(padded[real], expected)
    other = torch.where(real[..., None], x, 1e6)
    torch.testing.assert_close(made(other, seq_idx=seq_idx)[0][real], padded[real], rtol=0, atol=0)


@pytest.mark.parametrize("options", OPTIONS)
def test_padded_pieces_go_on_from_the_state(options):
    """A left-padded prompt, a right-padded piece in which a row begins a second sequence, then tokens one at a time."""
    made, x = mixer(**options), tokens(2, 14, 16)
    numbers = [
        torch.tensor([[-1, -1, 0, 0, 0], [0, 0, 0, 0, 0]]),
        torch.tensor([[5, 5, 6, -1], [5, -1, -1, -1]]),
        None,
        None,
    ]
    state, rows, at = None, [[], []], [0, 0]
    for seq_idx in numbers:
        real = torch.ones(2, 1, dtype=torch.bool) if seq_idx is None else seq_idx >= 0
        piece = torch.full((2, real.shape[1], 16), 7.0, **DOUBLE)
        for row in range(2):
            count = int(real[row].sum())
            piece[row, real[row]] = x[row, at[row] : at[row] + count]
            at[row] += count
        y, state = made(piece, state=state, seq_idx=seq_idx)
        for row in range(2):
            rows[row].append(y[row, real[row]])
    first = made(x[:1, :5])[0], made(x[:1, 5:8])[0]
    torch.testing.assert_close(torch.cat(rows[0])[None], torch.cat(first, 1))
    torch.testing.assert_close(torch.cat(rows[1])[None], made(x[1:, :8])[0])


def test_the_first_pieces_may_come_without_numbers():
    made, x = mixer(rotary_fraction=1.0), tokens(2, 9, 16)
    _, state = made(x[:, :4])
    assert state.sequence is None
    found, _ = made(x[:, 4:], state=state, seq_idx=torch.tensor([[2, 2, 2, 2, 2], [2, 2, 3, 3, 3]]))
    torch.testing.assert_close(found[0], made(x[:1])[0][0, 4:])
    torch.testing.assert_close(found[1, :2], made(x[1:, :6])[0][0, 4:])
    torch.testing.assert_close(found[1, 2:], made(x[1:, 6:])[0][0])


def test_only_causal_attention_has_a_state():
    made, x = mixer(causal=False), tokens(1, 4, 16)
    assert made(x)[1] is None
    with pytest.raises(UserError, match="causal"):
        made(x, state=mixer()(x)[1])


def test_sizes_keys_and_flops():
    made = Attention(32, 4, num_heads_kv=2, head_dim=16, d_conv=4)
    assert {name: tuple(p.shape) for name, p in made.named_parameters()} == {
        "in_proj.weight": (128, 32), "conv1d.weight": (128, 1, 4), "conv1d.bias": (128,), "out_proj.weight": (32, 64),
    }  # fmt: skip
    expected = 2 * (6 * 32 * (128 + 64) + 6 * 128 * 4 + 2 * 21 * 64)
    assert made.flops((6,)) == made.flops(Grid((2, 3))) == expected


def test_no_tokens():
    made = mixer(rotary_fraction=1.0)
    y, state = made(tokens(2, 0, 16))
    assert y.shape == (2, 0, 16)
    torch.testing.assert_close(made(tokens(2, 3, 16), state=state)[0], made(tokens(2, 3, 16))[0])


def test_wrong_options():
    for wrong in ({"num_heads_kv": 3}, {"num_heads": 5}, {"rotary_fraction": 1.5}, {"causal": False, "d_conv": 4}):
        with pytest.raises(UserError):
            mixer(**wrong)
