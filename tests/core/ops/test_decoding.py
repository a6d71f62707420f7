"""The step of decoding, convolution and scan over one token, against the float64 reference."""

from __future__ import annotations

import pytest
import torch
from operators import relative_error

from polymamba.core.errors import UserError
from polymamba.core.mixers import Mamba
from polymamba.core.ops import causal_conv1d as conv_ops
from polymamba.core.ops import selective_scan as scan_ops
from polymamba.core.ops.causal_conv1d import causal_conv1d
from polymamba.core.ops.selective_scan import selective_scan

CASES = [(1, 1536, 16, 4), (3, 40, 16, 4), (2, 5, 3, 2), (1, 8, 1, 1), (2, 129, 20, 5), (1, 1, 64, 3)]


@pytest.fixture(autouse=True)
def _no_gradient():
    with torch.no_grad():
        yield


@pytest.fixture
def taken(monkeypatch):
    """How often the quick way was taken."""
    count = []
    for module in (conv_ops, scan_ops):
        decode = module._decode
        monkeypatch.setattr(module, "_decode", lambda *a, d=decode: (f := d(*a), count.append(f is not None))[0])
    return count


def doubled(t):
    return t.double() if torch.is_tensor(t) else t


@pytest.mark.parametrize(("batch", "channels", "states", "width"), CASES)
@pytest.mark.parametrize("full", [True, False])
def test_scan(batch, channels, states, width, full, taken):
    g = torch.Generator().manual_seed(channels)
    both = torch.randn(batch, 1, 2 * channels, generator=g)
    x, z = both.chunk(2, -1)
    B, C = torch.randn(batch, 1, 2 * states + 1, generator=g)[..., 1:].chunk(2, -1)
    delta, A = torch.randn(batch, 1, channels, generator=g), -torch.rand(channels, states, generator=g) * 8
    rest = [None] * 4
    if full:
        rest = [torch.randn(channels, generator=g), z, torch.randn(channels, generator=g)]
        rest.append(torch.randn(batch, channels, states, generator=g))
    D, z, bias, state = rest
    arguments = (x, delta, A, B, C, D, z, bias, full, None, None, state, True)
    out, after = selective_scan(*arguments)
    expected, expected_state = selective_scan(*map(doubled, arguments), backend="reference")
    assert taken == [True]
    assert relative_error(out, expected) < 2e-6
    assert relative_error(after, expected_state) < 2e-6


@pytest.mark.parametrize(("batch", "channels", "states", "width"), CASES)
@pytest.mark.parametrize("full", [True, False])
def test_convolution(batch, channels, states, width, full, taken):
    g = torch.Generator().manual_seed(channels)
    x, weight = (
        torch.randn(batch, 1, 2 * channels, generator=g)[..., :channels],
        torch.randn(channels, width, generator=g),
    )
    bias, state = (torch.randn(channels, generator=g), torch.randn(batch, channels, width - 1, generator=g))
    if not full:
        bias = state = None
    arguments = (x, weight, bias, "silu" if full else None, None, None, state, True)
    out, after = causal_conv1d(*arguments)
    expected, expected_state = causal_conv1d(*map(doubled, arguments), backend="reference")
    assert taken == [True]
    assert relative_error(out, expected) < 2e-6
    assert torch.equal(after, expected_state.float())


def test_half_precision_keeps_its_dtype(taken):
    x, weight, state = torch.randn(2, 1, 24).bfloat16(), torch.randn(24, 4).bfloat16(), torch.randn(2, 24, 3)
    out, after = causal_conv1d(x, weight, None, "silu", initial_state=state, return_final_state=True)
    assert (out.dtype, after.dtype) == (torch.bfloat16, torch.float32)
    B = torch.randn(2, 1, 8).bfloat16()
    A = -torch.rand(24, 8)
    out, after = selective_scan(x, x, A, B, B, z=x, delta_softplus=True, return_final_state=True)
    expected = selective_scan(
        x.double(), x.double(), A.double(), B.double(), B.double(), z=x.double(), delta_softplus=True
    )
    assert (out.dtype, after.dtype) == (torch.bfloat16, torch.float32)
    assert relative_error(out, expected) < 4e-3
    assert taken == [True, True, False]  # the last is the float64 reference


def test_shapes_that_do_not_fit_are_still_explained():
    x, B = torch.randn(2, 1, 24), torch.randn(2, 1, 8)
    with pytest.raises(UserError, match="wrong shape"):
        selective_scan(x, x, -torch.rand(24, 7), B, B)
    with pytest.raises(UserError, match="wrong shape"):
        causal_conv1d(x, torch.randn(24, 4), initial_state=torch.randn(2, 24, 4))


def test_tracing_gradients_and_other_cases_go_the_general_way(taken):
    x, B, A = torch.randn(2, 1, 24), torch.randn(2, 1, 8), -torch.rand(24, 8)
    expected = selective_scan(x, x, A, B, B)
    with torch.enable_grad():
        torch.testing.assert_close(selective_scan(x, x, A, B, B), expected)
    torch.testing.assert_close(selective_scan(x, x, A, B, B, backend="reference"), expected)
    torch.testing.assert_close(selective_scan(x[:, None], x[:, None], A[None], B[:, None], B[:, None]), expected)
    torch.testing.assert_close(selective_scan(x, x, A, B, B, merge="none")[:, 0], expected)
    assert taken == [True, False]


def test_a_mixer_steps_as_it_mixes(taken):
    torch.manual_seed(0)
    mixer, x = Mamba(48, bias=True), torch.randn(2, 9, 48)
    whole, _ = mixer(x)
    # Keeps the mixer from taking the token in one call.
    mixer.in_proj.register_forward_hook(lambda module, given, found: None)
    state, pieces = None, []
    for t in range(9):
        y, state = mixer(x[:, t : t + 1], state=state)
        pieces.append(y)
    assert relative_error(torch.cat(pieces, 1), whole) < 1e-6
    assert taken == [True] * 16  # the first token, which has no state, goes the way of whole sequences
