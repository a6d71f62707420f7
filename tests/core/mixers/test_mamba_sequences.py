"""Sequences in pieces, packed and padded: what a Mamba mixer says must not depend on how its tokens arrive."""

import itertools

import pytest
import torch

from polymamba.core.mixers.mamba import Mamba
from polymamba.core.packing import seq_idx_from_lengths

CAUSAL = [{}, {"d_conv": 2}, {"conv": "none"}, {"norms": "learned"}, {"norms": "weightless", "gate": False}]
SCANS = [
    {}, {"scan": "bidirectional"}, {"scan": "bidirectional", "parameters": "shared"},
    {"scan": "bidirectional", "parameters": "decay"},
]  # fmt: skip


def mixer(dtype=torch.float64, **options):
    torch.manual_seed(0)
    made = Mamba(16, d_state=4, **options, dtype=dtype)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


def tokens(*shape, seed=1, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def gradients(made, y, weight, x=()):
    return torch.autograd.grad((y * weight).sum(), [*x, *made.parameters()], allow_unused=True)


def assert_same_gradients(found, expected):
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


def in_pieces(made, x, cuts, state=None, seq_idx=None):
    rows = []
    for begin, stop in itertools.pairwise(cuts):
        numbers = None if seq_idx is None else seq_idx[:, begin:stop]
        y, state = made(x[:, begin:stop], state=state, seq_idx=numbers)
        rows.append(y)
    return torch.cat(rows, 1), state


@pytest.mark.parametrize("options", CAUSAL)
def test_random_pieces_equal_the_whole_with_gradients_through_the_state(options):
    made, x = mixer(torch.float32, **options), tokens(2, 61, 16, dtype=torch.float32).requires_grad_()
    start = made(tokens(2, 7, 16, seed=2, dtype=torch.float32))[1]
    start = type(start)(*(None if t is None else t.detach().requires_grad_() for t in start))
    inputs = [x, *(t for t in start if t is not None), *made.parameters()]
    whole, end = made(x, state=start)
    weight = tokens(*whole.shape, seed=3, dtype=torch.float32)
    expected = torch.autograd.grad((whole * weight).sum() + end.ssm.square().sum(), inputs)
    generator = torch.Generator().manual_seed(4)
    for count in (1, 5, 20):
        cuts = sorted({0, 61, *torch.randint(1, 61, (count,), generator=generator).tolist()})
        found, last = in_pieces(made, x, cuts, start)
        assert (found - whole).norm() <= 1e-5 * whole.norm()
        for a, b in zip(last, end, strict=True):
            assert b is None or (a - b).norm() <= 1e-5 * b.norm()
        got = torch.autograd.grad((found * weight).sum() + last.ssm.square().sum(), inputs)
        assert all((a - b).norm() <= 1e-5 * b.norm() for a, b in zip(got, expected, strict=True))


@pytest.mark.parametrize("options", SCANS)
def test_packed_sequences_equal_separate_ones_with_gradients(options):
    made, lengths = mixer(**options), [5, 1, 9]
    parts = [tokens(1, length, 16, seed=length) for length in lengths]
    number = torch.repeat_interleave(torch.tensor([3, 0, 3]), torch.tensor(lengths))[None]
    packed, _ = made(torch.cat(parts, 1), seq_idx=number)
    separate = torch.cat([made(part)[0] for part in parts], 1)
    torch.testing.assert_close(packed, separate)
    weight = tokens(*packed.shape, seed=9)
    assert_same_gradients(gradients(made, packed, weight), gradients(made, separate, weight))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("options", SCANS)
def test_padded_rows_equal_unpadded_ones_with_gradients(options, side):
    made, lengths = mixer(**options), torch.tensor([6, 1, 11, 0])
    x = tokens(4, 11, 16).requires_grad_()
    seq_idx = seq_idx_from_lengths(lengths, side=side)
    padded, state = made(x, seq_idx=seq_idx)
    real = seq_idx >= 0
    alone = [made(row[here][None]) for row, here in zip(x[:3], real, strict=False)]
    expected = torch.cat([y[0] for y, _ in alone])
    torch.testing.assert_close(padded[real], expected)
    weight = tokens(*expected.shape, seed=9)
    found, expected_gradients = gradients(made, padded[real], weight, [x]), gradients(made, expected, weight, [x])
    assert_same_gradients(found, expected_gradients)
    assert found[0][real].any()
    assert not found[0][~real].any()
    if state is not None:
        torch.testing.assert_close(state.ssm[:3], torch.cat([s.ssm for _, s in alone]))
        torch.testing.assert_close(state.conv[:3], torch.cat([s.conv for _, s in alone]))
        assert not state.ssm[3].any()


def test_padding_reaches_nobody():
    made, x = mixer(scan="bidirectional"), tokens(2, 8, 16)
    seq_idx = torch.tensor([[-1, -1, 0, 0, -1, 0, 1, -1], [0, 0, 0, -1, -1, 2, 2, 2]])
    real = seq_idx >= 0
    expected = made(x, seq_idx=seq_idx)[0][real]
    other = torch.where(real[..., None], x, torch.full_like(x, float("nan")))
    torch.testing.assert_close(made(other, seq_idx=seq_idx)[0][real], expected, rtol=0, atol=0)


@pytest.mark.parametrize("options", CAUSAL)
def test_padded_pieces_go_on_from_the_state(options):
    """Pieces of different lengths in one batch, padded on the left or on the right, as in a conversation of turns."""
    made, x = mixer(**options), tokens(2, 12, 16)
    first, second = [3, 7], [6, 2]
    state, rows = None, []
    for begins, counts, side in (([0, 0], first, "left"), (first, second, "right")):
        seq_idx = seq_idx_from_lengths(torch.tensor(counts), side=side)
        piece = torch.zeros(2, seq_idx.shape[1], 16, dtype=x.dtype)
        for row in range(2):
            piece[row, seq_idx[row] >= 0] = x[row, begins[row] : begins[row] + counts[row]]
        y, state = made(piece, state=state, seq_idx=seq_idx)
        rows.append([y[row, seq_idx[row] >= 0] for row in range(2)])
    for row in range(2):
        expected, end = made(x[row : row + 1, : first[row] + second[row]])
        torch.testing.assert_close(torch.cat([rows[0][row], rows[1][row]]), expected[0])
        torch.testing.assert_close(state.ssm[row : row + 1], end.ssm)
        if state.conv is not None:
            torch.testing.assert_close(state.conv[row : row + 1], end.conv)


@pytest.mark.parametrize("norms", ["weightless", "learned"])
@pytest.mark.parametrize("scan", ["raster", "bidirectional"])
def test_norms_on_step_B_and_C(scan, norms):
    made, x = mixer(scan=scan, norms=norms, norm_eps=1e-3), tokens(2, 9, 32)
    inner = torch.stack([x, 2 * x], 1) if scan == "bidirectional" else x
    delta, B, C = made.path_parameters.read(made, inner)
    for path, end in enumerate(["", "_b"][: made.paths]):
        rows = inner[:, path] if scan == "bidirectional" else inner
        parts = getattr(made, f"x_proj{end}")(rows).split([made.dt_rank, made.d_state, made.d_state], -1)
        normed = []
        for part, name in zip(parts, ("dt", "b", "c"), strict=True):
            part = part * torch.rsqrt(part.square().mean(-1, keepdim=True) + 1e-3)
            normed.append(part * getattr(made, f"{name}_layernorm{end}").weight if norms == "learned" else part)
        normed[0] = normed[0] @ getattr(made, f"dt_proj{end}").weight.T
        for found, expected in zip((delta, B, C), normed, strict=True):
            torch.testing.assert_close(found[:, path] if scan == "bidirectional" else found, expected)


def test_norms_have_the_keys_of_jamba():
    names = {"dt_layernorm.weight", "b_layernorm.weight", "c_layernorm.weight"}
    assert names <= set(mixer(norms="learned").state_dict())
    assert mixer(norms="weightless").state_dict().keys() == mixer().state_dict().keys()
    made = mixer(norms="learned", scan="bidirectional")
    made(tokens(1, 5, 16))[0].square().sum().backward()
    assert all(getattr(made, f"{n}_layernorm_b").weight.grad.abs().sum() > 0 for n in ("dt", "b", "c"))
