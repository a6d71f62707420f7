"""One token through a Mamba-2 mixer in one call, against the operators that it is made of, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from operators import assert_decode_close, cast, relative_error
from torch.nn import functional as F

from polymamba.core.ops.mamba2_decode import Mamba2Weights, mamba2_decode
from polymamba.core.ops.mamba2_decode.reference import mamba2_decode_reference

# batch, model channels, heads, headdim, groups, states, taps
SIZES = [(1, 768, 24, 64, 1, 128, 4), (3, 20, 6, 5, 3, 7, 2), (4, 8, 2, 16, 2, 16, 4), (2, 65, 1, 37, 1, 20, 3),
         (1, 1, 1, 1, 1, 1, 1)]  # fmt: skip
OPTIONS = [
    {}, {"biases": False}, {"norm": False}, {"norm_before_gate": True, "skip_channels": True}, {"dt_limit": (0.2, 0.9)},
]  # fmt: skip


@pytest.fixture(autouse=True)
def _no_gradient():
    with torch.no_grad():
        yield


def made(sizes, biases=True, norm=True, norm_before_gate=False, skip_channels=False, dt_limit=(0.0, math.inf), seed=0):
    """Input, weights and states of a mixer."""
    batch, model, heads, headdim, groups, states, taps = sizes
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=g) / shape[-1] ** 0.5

    channels = heads * headdim
    convolved = channels + 2 * groups * states
    width = channels + convolved + heads
    bias = (lambda n: normal(n)) if biases else (lambda n: None)
    weights = Mamba2Weights(
        normal(width, model), bias(width), normal(convolved, 1, taps), bias(convolved), torch.rand(heads, generator=g) - 1,
        torch.rand(heads, generator=g) * 2, 1 + normal(channels if skip_channels else heads),
        1 + 0.1 * normal(channels) if norm else None, normal(model, channels), bias(model), headdim, groups, groups,
        norm_before_gate, 1e-5, dt_limit,
    )  # fmt: skip
    carried = (
        torch.randn(batch, convolved, taps - 1, generator=g), torch.randn(batch, heads, headdim, states, generator=g)
    )  # fmt: skip
    return torch.randn(batch, 1, model, generator=g), weights, carried


@pytest.fixture
def with_threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("known", [True, False])
def test_matches_float64(sizes, options, threads, known, with_threads):
    x, weights, states = made(sizes, **options)
    states = states if known else (None, None)
    before = cast(states, torch.float64)
    with_threads(threads)
    expected = mamba2_decode_reference(*(cast(v, torch.float64) for v in (x, weights, states)))
    found = mamba2_decode(x, weights, states)
    assert found[0].dtype == torch.float32
    assert_decode_close(found, expected, 2e-6)
    for kept, now in zip(before, states, strict=True):
        assert now is None or torch.equal(kept.float(), now)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("kept", [torch.bfloat16, torch.float32])
def test_bfloat16_weights_are_read_exactly(sizes, kept):
    x, weights, states = made(sizes)
    own = {name: getattr(weights, name).to(kept) for name in ("A_log", "D", "dt_bias")}
    half, x = cast(weights, torch.bfloat16)._replace(**own), x.bfloat16()
    y, after = mamba2_decode(x, half, states)
    expected = mamba2_decode_reference(*(cast(v, torch.float64) for v in (x, half, states)))
    assert y.dtype == torch.bfloat16
    assert_decode_close((y, after), (expected[0].bfloat16(), expected[1]), 2e-3 if sizes[1] == 1 else 5e-4)
    assert relative_error(after[1], expected[1][1]) < 2e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sizes", SIZES[:4])
def test_layers_one_after_the_other(sizes, dtype):
    layers = [made(sizes, seed=seed) for seed in range(3)]
    hidden = layers[0][0].to(dtype)
    weights, states = [cast(w, dtype) for _, w, _ in layers], [s for *_, s in layers]
    norms = [(torch.rand(sizes[1]).to(dtype) + 0.5, eps) for eps in (1e-5, 1e-6, 0.1)]
    found, residual, after = mamba2_decode.layers(hidden, weights, norms, states)
    stream, told = torch.zeros(hidden.shape, dtype=torch.float64), hidden.double()
    for w, (norm, eps), state, now in zip(weights, norms, states, after, strict=True):
        stream = stream + told
        x = F.rms_norm(stream, stream.shape[-1:], norm.double(), eps)
        told, expected = mamba2_decode_reference(x, cast(w, torch.float64), cast(state, torch.float64))
        assert all(relative_error(one, other) < 2e-6 for one, other in zip(now, expected, strict=True))
    assert (found.dtype, residual.dtype) == (dtype, torch.float32)
    assert relative_error(found, told) < (2e-6 if dtype == torch.float32 else 3e-3)
    assert relative_error(residual, stream) < 2e-6


@pytest.mark.parametrize("sizes", SIZES[:4])
def test_states_may_be_moved_on_in_place(sizes):
    x, weights, (conv, ssm) = made(sizes)
    # Some caches keep an input more than the convolution reads.
    states = (torch.cat([conv[..., :1], conv], -1), ssm.clone())
    y, after = mamba2_decode(x, weights, states, in_place=True)
    expected, (expected_conv, expected_ssm) = mamba2_decode(x, weights, (conv, ssm))
    assert after is states
    assert torch.equal(y, expected)
    assert torch.equal(states[1], expected_ssm)
    assert torch.equal(states[0], torch.cat([conv[..., :1], expected_conv], -1))


def test_cases_that_the_kernel_does_not_know():
    x, weights, states = made((2, 8, 2, 16, 2, 16, 4))
    conv, ssm = states
    assert mamba2_decode(x, weights, states) is not None
    with torch.enable_grad():
        assert mamba2_decode(x, weights, states) is None
    assert mamba2_decode(x, weights, states, backend="reference") is None
    for wrong in (x.double(), x[:, 0], x.expand(-1, 2, -1), x.repeat(3, 1, 1), x[..., :7], x.bfloat16()):
        assert mamba2_decode(wrong, weights, states) is None
    for name, value in (
        ("in_proj", weights.in_proj.T), ("norm", torch.ones(5)), ("A_log", weights.A_log.double()), ("groups", 3),
        ("D", torch.ones(3)), ("dt_bias", weights.dt_bias.bfloat16()), ("headdim", 15), ("norm_groups", 5),
        ("conv", weights.conv.squeeze(1)), ("out_bias", weights.out_bias.double()),
    ):  # fmt: skip
        assert mamba2_decode(x, weights._replace(**{name: value}), states) is None, name
    for wrong in (
        (conv[..., :2], ssm),
        (conv, ssm.double()),
        (conv[:1], ssm),
        (conv, ssm.transpose(1, 2).contiguous()),
    ):
        assert mamba2_decode(x, weights, wrong) is None
    assert mamba2_decode(x, weights, (None, None), in_place=True) is None
