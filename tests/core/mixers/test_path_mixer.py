"""What Mamba-2, Mamba-3 and S4D must all do: sequences in pieces, packed, padded, along any scan, traced."""

from __future__ import annotations

import itertools

import pytest
import torch

from polymamba.core import scans
from polymamba.core.errors import UserError
from polymamba.core.mixers import get
from polymamba.core.packing import seq_idx_from_lengths
from polymamba.core.scans import Grid

KINDS = {
    "mamba2": ("mamba2", {"ngroups": 2}),
    "mamba2, half a gated mlp": ("mamba2", {"d_ssm": 16, "D_has_hdim": True, "norm_before_gate": True, "bias": True}),
    "mamba2, no norm": ("mamba2", {"rmsnorm": False, "dt_limit": (0.01, 0.5), "conv_bias": False, "d_conv": 2}),
    "mamba3": ("mamba3", {"ngroups": 2}),
    "mamba3, normed": ("mamba3", {"is_outproj_norm": True, "A_activation": "softplus", "rope_fraction": 1.0}),
    "mamba3, several inputs": ("mamba3", {"is_mimo": True, "mimo_rank": 3}),
    "mamba3, several inputs, normed": ("mamba3", {"is_mimo": True, "mimo_rank": 2, "is_outproj_norm": True}),
    "s4d": ("s4d", {}),
    "s4d, biased": ("s4d", {"bias": True, "conv_bias": False, "d_conv": 3, "expand": 1}),
}
HEADED = ["mamba2", "mamba3", "mamba3, several inputs"]
ONE_OF_EACH = [*HEADED, "s4d"]


def mixer(kind, dtype=torch.float64, **options):
    torch.manual_seed(0)
    name, chosen = KINDS[kind]
    heads = {} if name == "s4d" else {"headdim": 8}
    made = get(name)(16, d_state=6, **heads | chosen | options, dtype=dtype)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


def tokens(*shape, seed=1, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def close(found, expected, tolerance=1e-5):
    return (found - expected).norm() <= tolerance * expected.norm()


def in_pieces(made, x, cuts, state=None):
    rows = []
    for begin, stop in itertools.pairwise(cuts):
        y, state = made(x[:, begin:stop], state=state)
        rows.append(y)
    return torch.cat(rows, 1), state


def same_angles(found, expected):
    """States whose angles are the same turn."""
    if hasattr(found, "angle"):
        turn = (found.angle - expected.angle).remainder(2 * torch.pi)
        assert torch.minimum(turn, 2 * torch.pi - turn).abs().max() < 1e-4
        return found[1:], expected[1:]
    return found, expected


@pytest.mark.parametrize("kind", KINDS)
def test_random_pieces_equal_the_whole_with_gradients_through_the_state(kind):
    made, x = mixer(kind, torch.float32), tokens(2, 150, 16, dtype=torch.float32).requires_grad_()
    start = made(tokens(2, 7, 16, seed=2, dtype=torch.float32))[1]
    start = type(start)(*(t.detach().requires_grad_() for t in start))
    inputs = [x, *start, *made.parameters()]
    whole, end = made(x, state=start)
    weight = tokens(*whole.shape, seed=3, dtype=torch.float32)
    expected = torch.autograd.grad((whole * weight).sum() + end.ssm.square().sum(), inputs)
    generator = torch.Generator().manual_seed(4)
    for count in (1, 5, 40):
        cuts = sorted({0, 150, *torch.randint(1, 150, (count,), generator=generator).tolist()})
        found, last = in_pieces(made, x, cuts, start)
        assert close(found, whole)
        assert all(close(a, b) for a, b in zip(*same_angles(last, end), strict=True))
        got = torch.autograd.grad((found * weight).sum() + last.ssm.square().sum(), inputs)
        assert all(close(a, b, 2e-5) for a, b in zip(got, expected, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_one_token_at_a_time_equals_the_whole_in_float64(kind):
    made, x = mixer(kind), tokens(2, 12, 16)
    whole, end = made(x)
    found, last = in_pieces(made, x, range(13))
    torch.testing.assert_close(found, whole)
    for a, b in zip(*same_angles(last, end), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("kind", KINDS)
def test_float32_equals_float64(kind):
    made, x = mixer(kind), tokens(2, 90, 16).requires_grad_()
    inputs, weight = [x, *made.parameters()], tokens(2, 90, 16, seed=3)
    expected = made(x)[0]
    gradients = torch.autograd.grad((expected * weight).sum(), inputs)
    made = made.float()
    x = x.detach().float().requires_grad_()
    found = made(x)[0]
    assert close(found.double(), expected)
    got = torch.autograd.grad((found * weight.float()).sum(), [x, *made.parameters()])
    assert all(close(a.double(), b, 1e-4) for a, b in zip(got, gradients, strict=True))


@pytest.mark.parametrize("scan", ["raster", "bidirectional"])
@pytest.mark.parametrize("kind", KINDS)
def test_packed_sequences_equal_separate_ones_with_gradients(kind, scan):
    made, lengths = mixer(kind, scan=scan), [5, 1, 9]
    parts = [tokens(1, length, 16, seed=length) for length in lengths]
    number = torch.repeat_interleave(torch.tensor([3, 0, 3]), torch.tensor(lengths))[None]
    packed, _ = made(torch.cat(parts, 1), seq_idx=number)
    separate = torch.cat([made(part)[0] for part in parts], 1)
    torch.testing.assert_close(packed, separate)
    weight = tokens(*packed.shape, seed=9)
    found, expected = (torch.autograd.grad((y * weight).sum(), list(made.parameters())) for y in (packed, separate))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", KINDS)
def test_padded_rows_equal_short_ones(kind, side):
    made, lengths = mixer(kind), [7, 3, 11]
    parts = [tokens(1, length, 16, seed=length) for length in lengths]
    x = tokens(3, 11, 16, seed=20) * 100
    places = [slice(11 - n, 11) if side == "left" else slice(0, n) for n in lengths]
    for row, (part, place) in enumerate(zip(parts, places, strict=True)):
        x[row, place] = part[0]
    y, state = made(x, seq_idx=seq_idx_from_lengths(torch.tensor(lengths), 11, side))
    for row, (part, place) in enumerate(zip(parts, places, strict=True)):
        expected, end = made(part)
        torch.testing.assert_close(y[row : row + 1, place], expected)
        torch.testing.assert_close(tuple(t[row : row + 1] for t in state), tuple(end))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ONE_OF_EACH)
def test_padding_reaches_nobody(kind, dtype):
    made, x = mixer(kind, dtype, scan="bidirectional"), tokens(2, 8, 16, dtype=dtype)
    seq_idx = torch.tensor([[-1, -1, 0, 0, -1, 0, 1, -1], [0, 0, 0, -1, -1, 2, 2, 2]])
    real = seq_idx >= 0
    expected = made(x, seq_idx=seq_idx)[0][real]
    other = torch.where(real[..., None], x, torch.full_like(x, float("nan")))
    torch.testing.assert_close(made(other, seq_idx=seq_idx)[0][real], expected, rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_of_padding_alone_keeps_its_state(kind):
    made = mixer(kind)
    state = made(tokens(2, 5, 16))[1]
    seq_idx = torch.tensor([[0, 0, 0], [-1, -1, -1]])
    _, after = made(tokens(2, 3, 16, seed=5), state=state, seq_idx=seq_idx)
    for a, b in zip(after, state, strict=True):
        torch.testing.assert_close(a[1], b[1])
        assert not torch.equal(a[0], b[0])


@pytest.mark.parametrize("kind", KINDS)
def test_along_a_scan_each_path_is_the_raster_mixer_on_its_tokens(kind):
    grid = Grid.with_class_token((3, 4), "middle")
    made, x = mixer(kind, scan="cross", axes=2, merge="none"), tokens(2, grid.length, 16)
    raster = mixer(kind)
    y, state = made(x, grid)
    assert state is None
    for path, order in enumerate(scans.get("cross").order(grid).long()):
        expected = torch.empty_like(x)
        expected[:, order] = raster(x[:, order])[0]
        torch.testing.assert_close(y[:, path], expected)


@pytest.mark.parametrize("merge", ["sum", "mean"])
@pytest.mark.parametrize("kind", ["mamba2, no norm", "mamba3"])
def test_merged_paths_are_gated_together(kind, merge):
    x = tokens(1, 9, 16)
    made = mixer(kind, scan="bidirectional", merge=merge)
    apart = mixer(kind, scan="bidirectional", merge="none")(x)[0]
    torch.testing.assert_close(made(x)[0] - _bias(made), (apart - _bias(made)).sum(1) / (2 if merge == "mean" else 1))


def _bias(made):
    return 0 if made.out_proj.bias is None else made.out_proj.bias


def test_scans_of_one_float32_path_agree_with_float64():
    for kind in ONE_OF_EACH:
        made, x = mixer(kind, scan="cross", axes=2), tokens(2, 12, 16)
        expected = made(x, (3, 4))[0]
        assert close(made.float()(x.float(), (3, 4))[0].double(), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_gets_a_gradient(kind):
    made = mixer(kind, torch.float32, scan="bidirectional")
    made(tokens(2, 13, 16, dtype=torch.float32))[0].square().sum().backward()
    idle = [name for name, p in made.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert idle == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_empty_input(kind, dtype):
    made = mixer(kind, dtype)
    y, state = made(tokens(2, 0, 16, dtype=dtype))
    assert y.shape == (2, 0, 16)
    assert all(not t.any() for t in state)
    later = made(tokens(2, 4, 16, dtype=dtype))[1]
    _, same = made(tokens(2, 0, 16, dtype=dtype), state=later)
    assert all(torch.equal(a, b) for a, b in zip(same, later, strict=True))
    assert made(tokens(0, 4, 16, dtype=dtype))[0].shape == (0, 4, 16)


@pytest.mark.parametrize("kind", ONE_OF_EACH)
def test_half_precision(kind):
    made, x = mixer(kind, torch.float32), tokens(2, 40, 16, dtype=torch.float32).bfloat16()
    expected = made(x.float())[0]
    made = made.bfloat16()
    y, state = made(x)
    assert y.dtype == torch.bfloat16
    assert all(t.dtype == torch.float32 for t in state)
    assert close(y.float(), expected, 5e-2)


@pytest.mark.parametrize("kind", ONE_OF_EACH)
def test_a_state_needs_one_raster_path(kind):
    state = mixer(kind)(tokens(1, 4, 16))[1]
    for scan in ("reverse", "bidirectional"):
        made = mixer(kind, scan=scan)
        assert made(tokens(1, 4, 16))[1] is None
        with pytest.raises(UserError, match="raster"):
            made(tokens(1, 4, 16), state=state)


@pytest.mark.parametrize("kind", HEADED)
def test_wrong_heads(kind):
    with pytest.raises(UserError, match="headdim"):
        get(KINDS[kind][0])(16, headdim=5)
    with pytest.raises(UserError, match="groups"):
        mixer(kind, ngroups=3)


@pytest.mark.parametrize("kind", ONE_OF_EACH)
def test_wrong_options_and_grids(kind):
    with pytest.raises(UserError, match="merge"):
        mixer(kind, merge="product")
    with pytest.raises(UserError, match="10 tokens"):
        mixer(kind, scan="bidirectional")(tokens(1, 10, 16), (3, 4))
    with pytest.raises(UserError, match="axes"):
        mixer(kind, scan="cross", axes=3)(tokens(1, 12, 16), (3, 4))


def test_flops_grow_with_what_is_computed():
    for kind in ONE_OF_EACH:
        once, cross = (mixer(kind, scan=scan, axes=2).flops((4, 4)) for scan in ("raster", "cross"))
        made = mixer(kind)
        assert once > 2 * 16 * 16 * (made.in_proj.out_features + made.d_inner)
        assert once < cross < 4 * once
