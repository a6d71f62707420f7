"""Packed sequences know nothing of one another: not by numbers that are cut short, and not by what is not finite."""

import math

import pytest
import torch
from torch import nn

from polymamba.core.mixers import MIXERS
from polymamba.core.mlp import GatedMLP
from polymamba.core.moe import MixtureOfExperts
from polymamba.core.ops.causal_conv1d import causal_conv1d
from polymamba.core.ops.selective_scan import selective_scan
from polymamba.core.ops.state_space_duality import state_space_duality
from polymamba.core.ops.trapezoidal_scan import trapezoidal_scan
from polymamba.core.packing import runs, seq_idx_from_cu_seqlens, seq_idx_from_lengths
from polymamba.core.stack import ResidualBlock, make_norm, run_stack

# Lengths on both sides of the chunks in which kernels work.
LENGTHS = (70, 3, 1, 20)
LENGTH = sum(LENGTHS)
BEGINS = [sum(LENGTHS[:i]) for i in range(len(LENGTHS))]
SEQUENCES = torch.repeat_interleave(torch.arange(4), torch.tensor(LENGTHS))
MADE = {
    "mamba": ("mamba", {"d_state": 4}),
    "mamba normed": ("mamba", {"d_state": 4, "norms": "learned"}),
    "mamba on paths": ("mamba", {"d_state": 4, "scan": "bidirectional"}),
    "mamba with decays": ("mamba", {"d_state": 4, "scan": "bidirectional", "parameters": "decay"}),
    "mamba2": ("mamba2", {"d_state": 8, "headdim": 8}),
    "mamba2 on paths": ("mamba2", {"d_state": 8, "headdim": 8, "scan": "bidirectional"}),
    "mamba2 with an mlp": ("mamba2", {"d_state": 8, "headdim": 8, "d_ssm": 16}),
    "mamba3": ("mamba3", {"d_state": 8, "headdim": 8}),
    "mamba3 mimo": ("mamba3", {"d_state": 8, "headdim": 8, "is_mimo": True, "mimo_rank": 2}),
    "mamba3 on paths": ("mamba3", {"d_state": 8, "headdim": 8, "scan": "bidirectional"}),
    "s4d": ("s4d", {"d_state": 4}),
    "s4d on paths": ("s4d", {"d_state": 4, "scan": "bidirectional"}),
    "attention": ("attention", {"num_heads": 2, "rotary_fraction": 1.0, "d_conv": 3}),
    "attention both ways": ("attention", {"num_heads": 2, "causal": False}),
}
BACKENDS = ("auto", "reference")
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64)


def made(name: str, backend: str = "auto") -> nn.Module:
    torch.manual_seed(0)
    kind, options = MADE[name]
    return MIXERS[kind](16, **options, backend=backend)


def tokens(batch: int = 2, length: int = LENGTH, seed: int = 1) -> torch.Tensor:
    return torch.randn(batch, length, 16, generator=torch.Generator().manual_seed(seed))


def gradients(mixer, x, seq_idx, weight):
    x = x.clone().requires_grad_()
    y, _ = mixer(x, None, None, seq_idx)
    (gradient,) = torch.autograd.grad((y * weight).sum(), x)
    return y.detach(), gradient


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("spoiled", [0, 1, 3])
@pytest.mark.parametrize("name", MADE)
def test_what_is_not_finite_stays_in_its_sequence(name, spoiled, value, backend):
    if backend == "reference" and (math.isinf(value) or spoiled == 1):
        pytest.skip("the reference is slow; once each way is enough")
    mixer, x, seq_idx = made(name, backend), tokens(), SEQUENCES.expand(2, -1)
    weight = torch.randn(LENGTH, 16, generator=torch.Generator().manual_seed(2))
    expected = gradients(mixer, x, seq_idx, weight)
    x[0, BEGINS[spoiled] + LENGTHS[spoiled] // 2] = value
    found = gradients(mixer, x, seq_idx, weight)
    others = torch.ones(2, LENGTH, dtype=torch.bool)
    others[0] = spoiled != SEQUENCES
    assert not found[0][~others].isfinite().all()
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one[others], other[others], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("spoiled", [0, 3])
@pytest.mark.parametrize("name", MADE)
def test_a_gradient_that_is_not_finite_stays_in_its_sequence(name, spoiled):
    mixer, x, seq_idx = made(name), tokens(), SEQUENCES.expand(2, -1)
    weight = torch.randn(2, LENGTH, 16, generator=torch.Generator().manual_seed(2))
    expected = gradients(mixer, x, seq_idx, weight)
    weight[0, BEGINS[spoiled] + LENGTHS[spoiled] // 2] = math.nan
    found = gradients(mixer, x, seq_idx, weight)
    others = torch.ones(2, LENGTH, dtype=torch.bool)
    others[0] = spoiled != SEQUENCES
    assert not found[1][~others].isfinite().all()
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one[others], other[others], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", MADE)
def test_what_stands_at_padding_is_in_no_sum(name, backend, side):
    mixer, seq_idx = made(name, backend), seq_idx_from_lengths(torch.tensor([9, 13]), 13, side)
    clean = tokens(length=13).masked_fill((seq_idx < 0)[..., None], 0)
    results = []
    for filling in (0.0, math.nan, math.inf):
        x = clean.masked_fill((seq_idx < 0)[..., None], filling).requires_grad_()
        y, state = mixer(x, None, None, seq_idx)
        found = torch.autograd.grad(y[seq_idx >= 0].square().sum(), [x, *mixer.parameters()], allow_unused=True)
        state = () if state is None else tuple(t for t in state if t is not None)
        results.append([y, *state, *(t for t in found if t is not None)])
        assert not found[0][seq_idx < 0].any()
    for spoiled in results[1:]:
        for one, other in zip(spoiled, results[0], strict=True):
            assert torch.equal(one, other)
            assert one.isfinite().all()


def hybrid() -> list[nn.Module]:
    torch.manual_seed(0)
    layers = []
    for number, name in enumerate(("mamba", "attention", "mamba2", "mamba3", "s4d")):
        mlp = MixtureOfExperts(16, 8, 3, capacity_factor=None) if number % 2 else GatedMLP(16, 8)
        layers.append(ResidualBlock(made(name), make_norm("rms", 16), mlp, make_norm("rms", 16)))
    return layers


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_hybrids_keep_sequences_apart(value):
    layers, seq_idx = hybrid(), SEQUENCES.expand(2, -1).clone()
    seq_idx[:, -4:] = -1
    results = []
    for spoilt in (0.0, value):
        x = tokens()
        x[:, BEGINS[1] + 1] += spoilt
        x[:, -4:] = spoilt
        x.requires_grad_()
        y = run_stack(layers, x, seq_idx=seq_idx).hidden
        results.append((y, *torch.autograd.grad(y.sum(), x)))
    others = (seq_idx != 1) & (seq_idx >= 0)
    assert not results[1][0][seq_idx == 1].isfinite().all()
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one[others], other[others], rtol=1e-4, atol=1e-5)


def test_decoding_goes_on_beside_a_sequence_that_is_not_finite():
    mixer, x = made("attention"), tokens()
    seq_idx, more = SEQUENCES.expand(2, -1), tokens(length=3, seed=5)
    with torch.no_grad():
        expected = mixer(more, None, mixer(x, None, None, seq_idx)[1])[0]
        x[:, :70] = math.nan
        found = mixer(more, None, mixer(x, None, None, seq_idx)[1])[0]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("step", [2**32, 2**31, 2**62, -(2**32)])
@pytest.mark.parametrize("name", MADE)
def test_numbers_that_differ_in_their_upper_bits_differ(name, step, backend):
    mixer, x = made(name, backend), tokens(1, 12)
    near = torch.tensor([[5] * 4 + [6] * 5 + [5] * 3])
    far = torch.where(near == 6, 5 + abs(step), 5) if step > 0 else torch.where(near == 6, 5, 5 - step)
    assert torch.equal(mixer(x, None, None, far)[0], mixer(x, None, None, near)[0])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("name", MADE)
def test_sequences_may_be_numbered_in_any_integer_dtype(name, dtype, backend):
    mixer, x, numbers = made(name, backend), tokens(1, 12), torch.tensor([[0] * 4 + [1] * 5 + [0] * 3])
    expected = mixer(x, None, None, numbers)[0]
    assert torch.equal(mixer(x, None, None, numbers.to(dtype))[0], expected)
    assert torch.equal(mixer(x, None, None, numbers.bool())[0], expected)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_helpers_take_any_integer_dtype(dtype):
    numbers = torch.tensor([[0, 0, 1, 1, 0]])
    assert runs(numbers.to(dtype)).tolist() == [[0, 0, 1, 1, 2]]
    assert seq_idx_from_lengths(torch.tensor([2, 3]).to(dtype)).tolist() == [[0, 0, -1], [0, 0, 0]]
    assert seq_idx_from_cu_seqlens(torch.tensor([0, 2, 5]).to(dtype)).tolist() == [[0, 0, 1, 1, 1]]
    with pytest.raises(ValueError, match="never fall"):
        seq_idx_from_cu_seqlens(torch.tensor([0, 5, 3]).to(dtype))


def operators(batch, length, backend, seq_idx=None):
    """Each operator's results with a final state, on inputs of these sizes; gradients flow."""

    def normal(*shape):
        return torch.randn(*shape, requires_grad=True)

    row, shared = (batch, length), {"seq_idx": seq_idx, "return_final_state": True, "backend": backend}
    rates = -torch.rand(4)
    yield causal_conv1d(normal(*row, 6), normal(6, 4), normal(6), "silu", initial_state=normal(batch, 6, 3), **shared)
    B = normal(*row, 3)
    yield selective_scan(
        normal(*row, 6), normal(*row, 6), -torch.rand(6, 3), B, B, normal(6), normal(*row, 6), normal(6), True,
        initial_state=normal(batch, 6, 3), **shared,
    )  # fmt: skip
    yield state_space_duality(
        normal(*row, 4, 3), normal(*row, 4), rates, normal(*row, 2, 5), normal(*row, 2, 5), normal(4), normal(*row, 4, 3),
        initial_state=normal(batch, 4, 3, 5), **shared,
    )  # fmt: skip
    x, steps = normal(*row, 2, 4, 3), (-torch.rand(*row, 4), torch.rand(*row, 4), torch.rand(*row, 4))
    state = (normal(batch, 4, 3, 5), normal(batch, 2, 2, 5), normal(batch, 2, 4, 3))
    y, after = trapezoidal_scan(
        x, *steps, normal(*row, 2, 2, 5), normal(*row, 2, 2, 5), None, None, seq_idx, state, True, backend=backend
    )
    yield y, after.h


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("batch", "length"), [(0, 0), (0, 1), (0, 2), (0, 70), (2, 0), (2, 1), (1, 1)])
@pytest.mark.parametrize("packed", [False, True])
def test_operators_of_nothing(batch, length, packed, backend):
    seq_idx = torch.zeros(batch, length, dtype=torch.int64) if packed else None
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            for y, state in operators(batch, length, backend, seq_idx):
                assert y.shape[:2] == (batch, length)
                assert state.shape[0] == batch
                assert state.isfinite().all()
                if grad:
                    (y.sum() + state.sum()).backward()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("batch", "length"), [(0, 0), (0, 1), (0, 2), (2, 0), (2, 1)])
@pytest.mark.parametrize("name", MADE)
def test_mixers_of_nothing(name, batch, length, backend):
    mixer, x = made(name, backend), torch.randn(batch, length, 16, requires_grad=True)
    for seq_idx in (None, torch.zeros(batch, length, dtype=torch.int64), torch.full((batch, length), -1)):
        y, state = mixer(x, None, None, seq_idx)
        assert y.shape == x.shape
        assert torch.autograd.grad(y.sum(), x)[0].shape == x.shape
        with torch.no_grad():
            assert torch.equal(mixer(x, None, None, seq_idx)[0], y) or length == 1
            if state is not None:
                assert mixer(x, None, state, seq_idx)[0].shape == x.shape


@pytest.mark.parametrize(("batch", "length"), [(0, 1), (0, 2), (2, 0)])
def test_stacks_of_nothing(batch, length):
    layers = hybrid()
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            assert run_stack(layers, torch.zeros(batch, length, 16)).hidden.shape == (batch, length, 16)
