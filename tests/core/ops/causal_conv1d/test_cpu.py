"""The Numba convolution against the float64 reference."""

from __future__ import annotations

import pytest
import torch
from operators import assert_matches_reference, causal_conv1d_call, run

from polymamba.core.errors import UserError
from polymamba.core.ops.causal_conv1d import causal_conv1d


@pytest.mark.parametrize("seed", range(150))
def test_random_calls_match_the_reference(seed):
    assert_matches_reference(causal_conv1d, *causal_conv1d_call(seed), backend="cpu")


@pytest.mark.parametrize("length", [0, 1, 2])
def test_shorter_than_the_taps(length):
    x, weight, state = torch.randn(2, length, 5), torch.randn(5, 4), torch.randn(2, 5, 3)
    for backend in ("cpu", "reference"):
        out, final = causal_conv1d(x, weight, initial_state=state, return_final_state=True, backend=backend)
        history = torch.cat([state, x.transpose(1, 2)], 2)
        torch.testing.assert_close(final, history[..., -3:])
        if length:
            expected = torch.nn.functional.conv1d(history, weight[:, None], groups=5).transpose(1, 2)
            torch.testing.assert_close(out, expected)


def test_in_pieces_equals_whole():
    x, weight, bias = torch.randn(2, 40, 11), torch.randn(11, 4), torch.randn(11)
    whole = causal_conv1d(x, weight, bias, "silu", backend="cpu")
    state, pieces = None, []
    for piece in (slice(0, 2), slice(2, 3), slice(3, 40)):
        out, state = causal_conv1d(x[:, piece], weight, bias, "silu", initial_state=state, return_final_state=True)
        pieces.append(out)
    torch.testing.assert_close(torch.cat(pieces, 1), whole)


def test_bit_identical_whatever_the_number_of_threads():
    tensors, other = causal_conv1d_call(8)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(run(causal_conv1d, tensors, other, "cpu"))
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        assert all(torch.equal(result[name], results[0][name]) for name in result)


def test_unknown_activation_is_refused():
    with pytest.raises(UserError, match="activation"):
        causal_conv1d(torch.rand(1, 3, 2), torch.rand(2, 4), activation="gelu")
