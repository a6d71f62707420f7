"""One token through a Mamba mixer in one call, against the operators that it is made of, in float64."""

from __future__ import annotations

import multiprocessing

import pytest
import torch
from operators import assert_decode_close, cast, relative_error
from torch.nn import functional as F

from polymamba.core.ops.mamba_decode import MambaWeights, mamba_decode
from polymamba.core.ops.mamba_decode.reference import mamba_decode_reference

# batch, model channels, channels, rank, states, taps
SIZES = [
    (1, 768, 1536, 48, 16, 4),
    (3, 20, 37, 3, 5, 2),
    (4, 8, 16, 1, 16, 4),
    (2, 65, 129, 5, 20, 3),
    (1, 1, 1, 1, 1, 1),
]


@pytest.fixture(autouse=True)
def _no_gradient():
    with torch.no_grad():
        yield


def made(sizes, gate=True, biases=True, norms="none", seed=0):
    """Input, weights and states of a mixer."""
    batch, model, channels, rank, states, taps = sizes
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=g) / shape[-1] ** 0.5

    width = channels * (2 if gate else 1)
    bias = (lambda n: normal(n)) if biases else (lambda n: None)
    given = {
        "none": None,
        "weightless": (None,) * 3,
        "learned": tuple(1 + 0.1 * normal(n) for n in (rank, states, states)),
    }
    weights = MambaWeights(
        normal(width, model), bias(width), normal(channels, 1, taps), bias(channels), normal(rank + 2 * states, channels),
        normal(channels, rank), torch.rand(channels, generator=g) - 3, torch.rand(channels, states, generator=g) * 2 - 1,
        1 + normal(channels), normal(model, channels), bias(model), given[norms], 1e-5,
    )  # fmt: skip
    x = torch.randn(batch, 1, model, generator=g)
    carried = (torch.randn(batch, channels, taps - 1, generator=g), torch.randn(batch, channels, states, generator=g))
    return x, weights, carried


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("options", [
    {}, {"gate": False}, {"biases": False}, {"norms": "weightless"}, {"norms": "learned", "gate": False},
])  # fmt: skip
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("known", [True, False])
def test_matches_float64(sizes, options, threads, known, with_threads):
    x, weights, states = made(sizes, **options)
    states = states if known else (None, None)
    before = cast(states, torch.float32)
    with_threads(threads)
    expected = mamba_decode_reference(*(cast(v, torch.float64) for v in (x, weights, states)))
    found = mamba_decode(x, weights, states)
    assert_decode_close(found, expected, 2e-6)
    assert found[0].dtype == torch.float32
    for kept, now in zip(before, states, strict=True):
        assert now is None or torch.equal(kept, now)


@pytest.fixture
def with_threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("logs", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("norms", ["none", "learned"])
def test_bfloat16_weights_are_read_exactly(sizes, logs, norms):
    x, weights, states = made(sizes, norms=norms)
    half = cast(weights, torch.bfloat16)._replace(A_log=weights.A_log.to(logs), D=weights.D.to(logs))
    x = x.bfloat16()
    y, after = mamba_decode(x, half, states)
    expected = mamba_decode_reference(*(cast(v, torch.float64) for v in (x, half, states)))
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
    found, residual, after = mamba_decode.layers(hidden, weights, norms, states)
    stream, told = torch.zeros(hidden.shape, dtype=torch.float64), hidden.double()
    for w, (norm, eps), state, now in zip(weights, norms, states, after, strict=True):
        stream = stream + told
        x = F.rms_norm(stream, stream.shape[-1:], norm.double(), eps)
        told, expected = mamba_decode_reference(x, cast(w, torch.float64), cast(state, torch.float64))
        for one, other in zip(now, expected, strict=True):
            assert relative_error(one, other) < 2e-6
    assert (found.dtype, residual.dtype) == (dtype, torch.float32)
    assert relative_error(found, told) < (2e-6 if dtype == torch.float32 else 3e-3)
    assert relative_error(residual, stream) < 2e-6


@pytest.mark.parametrize("sizes", SIZES[:4])
def test_states_may_be_moved_on_in_place(sizes):
    x, weights, (conv, ssm) = made(sizes)
    # Some caches keep an input more than the convolution reads.
    for kept in (0, 1):
        longer = torch.cat([torch.randn(conv.shape[0], conv.shape[1], kept), conv], -1)
        states, before = (longer.clone(), ssm.clone()), (longer.clone(), ssm.clone())
        y, after = mamba_decode(x, weights, states, in_place=True)
        expected, (expected_conv, expected_ssm) = mamba_decode(x, weights, (conv, ssm))
        assert after is states
        assert torch.equal(y, expected)
        assert torch.equal(states[1], expected_ssm)
        assert torch.equal(states[0][..., kept:], expected_conv)
        assert torch.equal(states[0][..., :kept], before[0][..., 1 : kept + 1])


def test_more_threads_than_processors_and_one_answer(with_threads):
    x, weights, states = made(SIZES[0])
    with_threads(1)
    expected = mamba_decode(x, weights, states)
    for threads in (2, 7):
        with_threads(threads)
        for _ in range(20):
            y, after = mamba_decode(x, weights, states)
            torch.testing.assert_close(y, expected[0], rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(after, expected[1], rtol=1e-5, atol=1e-6)


def _in_child(sums, *arguments):
    with torch.no_grad():
        sums.put(mamba_decode(*arguments)[0].flatten().tolist())


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_works_alone():
    arguments = made(SIZES[0])
    expected = mamba_decode(*arguments)[0].flatten()
    context = multiprocessing.get_context("fork")
    sums = context.SimpleQueue()
    child = context.Process(target=_in_child, args=(sums, *arguments), daemon=True)
    child.start()
    child.join(60)
    assert child.exitcode == 0
    torch.testing.assert_close(torch.tensor(sums.get()), expected, rtol=1e-4, atol=1e-5)


def test_cases_that_the_kernel_does_not_know():
    x, weights, states = made((2, 8, 16, 1, 4, 4))
    conv, ssm = states
    assert mamba_decode(x, weights, states) is not None
    with torch.enable_grad():
        assert mamba_decode(x, weights, states) is None
    with torch.autocast("cpu", torch.bfloat16):
        assert mamba_decode(x, weights, states) is None
    assert mamba_decode(x, weights, states, backend="reference") is None
    for wrong in (x.double(), x[:, 0], x.expand(-1, 2, -1), x.repeat(3, 1, 1), x[:0], x[..., :7], x.bfloat16()):
        assert mamba_decode(wrong, weights, states) is None
    for name, value in (
        ("in_proj", weights.in_proj.T), ("out_bias", weights.out_bias.double()), ("A_log", weights.A_log.double()),
        ("D", weights.D.bfloat16()), ("x_proj", weights.x_proj[:5]), ("dt_proj", weights.dt_proj.expand(-1, 2)),
        ("conv", weights.conv.squeeze(1)), ("norms", (torch.ones(2), None, None)),
    ):  # fmt: skip
        assert mamba_decode(x, weights._replace(**{name: value}), states) is None, name
    for wrong in (
        (conv[..., :2], ssm),
        (conv, ssm.double()),
        (conv[:1], ssm),
        (conv, ssm.transpose(1, 2).contiguous()),
    ):
        assert mamba_decode(x, weights, wrong) is None
    assert mamba_decode(x, weights, (None, None), in_place=True) is None
    norm = (torch.ones(8), 1e-5)
    assert mamba_decode.layers(x, [weights] * 2, [norm] * 2, [states] * 2) is not None
    assert mamba_decode.layers(x, [weights] * 2, [norm, (torch.ones(9), 1e-5)], [states] * 2) is None
    assert mamba_decode.layers(x, [weights] * 2, [norm] * 2, [states, (conv, ssm[..., 1:])]) is None
