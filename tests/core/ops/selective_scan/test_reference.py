"""The definition itself: gradcheck, closed forms, theorem 1 of the Mamba paper, and what the public function refuses."""

from __future__ import annotations

import pytest
import torch
from operators import selective_scan_call

from polymamba.core.errors import UserError
from polymamba.core.ops.selective_scan import selective_scan


@pytest.mark.parametrize("seed", range(12))
def test_gradcheck(seed):
    tensors, other = selective_scan_call(seed, longest=6, states=3, paths=3)
    names = list(tensors)
    inputs = [tensors[name].double().requires_grad_() for name in names]

    def call(*values):
        return selective_scan(**dict(zip(names, values, strict=True)), **other, backend="reference")

    assert torch.autograd.gradcheck(call, inputs, fast_mode=True)


def test_written_out_by_hand():
    x, delta, B, C = (torch.rand(1, 3, 1, dtype=torch.float64) for _ in range(4))
    A, D = torch.tensor([[-0.7]], dtype=torch.float64), torch.tensor([0.3], dtype=torch.float64)
    h, expected = 0.0, []
    for t in (2, 0, 1):
        h = torch.exp(delta[0, t, 0] * A[0, 0]) * h + delta[0, t, 0] * B[0, t, 0] * x[0, t, 0]
        expected.append((t, h * C[0, t, 0] + 0.3 * x[0, t, 0]))
    out = selective_scan(x, delta, A, B, C, D, order=torch.tensor([[2, 0, 1]]))
    for t, value in expected:
        torch.testing.assert_close(out[0, t, 0], value)


def test_theorem_1_gated_rnn():
    """N = 1, A = -1, B = 1, Δ = softplus(linear): h_t = (1 - g) h_{t-1} + g x with g = sigmoid(linear), to first order.

    Zero-order hold (the theorem's own discretisation) has (1 - exp(-Δ)) where the scan has Δ: x is scaled accordingly.
    """
    linear, x = torch.randn(1, 20, 3, dtype=torch.float64), torch.randn(1, 20, 3, dtype=torch.float64)
    g, step = torch.sigmoid(linear), torch.nn.functional.softplus(linear)
    one = torch.ones(1, 20, 1, dtype=torch.float64)
    A = -torch.ones(3, 1, dtype=torch.float64)
    out = selective_scan(x * g / step, linear, A, one, one, delta_softplus=True)
    h = torch.zeros(1, 3, dtype=torch.float64)
    for t in range(20):
        h = (1 - g[:, t]) * h + g[:, t] * x[:, t]
        torch.testing.assert_close(out[:, t], h)


def test_complex_a_equals_its_conjugate_pair_written_out():
    x, delta = torch.randn(1, 9, 2, dtype=torch.float64), torch.rand(1, 9, 2, dtype=torch.float64)
    A = torch.complex(-torch.rand(2, 3), torch.randn(2, 3)).to(torch.complex128)
    B, C = (torch.randn(1, 9, 3, dtype=torch.complex128) for _ in range(2))
    half = selective_scan(x, delta, A, B, C)
    both = [torch.cat([t, t.conj()], -1) for t in (A, B, C)]
    h, expected = torch.zeros(1, 2, 6, dtype=torch.complex128), []
    for t in range(9):
        h = (
            torch.exp(delta[:, t, :, None] * both[0]) * h
            + delta[:, t, :, None] * both[1][:, t, None] * x[:, t, :, None]
        )
        expected.append((h * both[2][:, t, None]).sum(-1).real)
    torch.testing.assert_close(half, torch.stack(expected, 1))


def test_merges():
    x, delta, B = torch.randn(2, 5, 3), torch.rand(2, 5, 3), torch.randn(2, 5, 4)
    A, z = -torch.rand(2, 3, 4), torch.randn(2, 5, 3)
    order = torch.tensor([[0, 1, 2, 3, 4], [4, 3, 2, 1, 0]])
    by_path = selective_scan(x, delta, A, B, B, z=z, order=order, merge="none", backend="reference")
    assert by_path.shape == (2, 2, 5, 3)
    total = selective_scan(x, delta, A, B, B, z=z, order=order, backend="reference")
    mean = selective_scan(x, delta, A, B, B, z=z, order=order, merge="mean", backend="reference")
    torch.testing.assert_close(by_path.sum(1), total)
    torch.testing.assert_close(by_path.mean(1), mean)


def test_unvisited_tokens_get_nothing():
    x, B = torch.randn(1, 6, 2), torch.randn(1, 6, 3)
    out = selective_scan(x, x.abs(), -torch.ones(2, 3), B, B, torch.ones(2), order=torch.tensor([[1, 4]]))
    assert (out[0, [0, 2, 3, 5]] == 0).all()
    assert (out[0, [1, 4]] != 0).all()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"merge": "product"}, "merge"),
        ({"backend": "cuda"}, "backend"),
        ({"delta": torch.rand(1, 5, 2)}, "delta has the wrong shape"),
        ({"A": -torch.ones(3, 4)}, "A has the wrong shape"),
        ({"order": torch.zeros(1, 4)}, "integer"),
        ({"order": torch.zeros(2, 4, dtype=torch.int64), "A": -torch.ones(3, 2, 3)}, "number of paths"),
        ({"seq_idx": torch.zeros(1, 9, dtype=torch.int64)}, "seq_idx has the wrong shape"),
        ({"B": torch.rand(1, 1, 4, 3, 3), "C": torch.rand(1, 1, 4, 3, 3)}, "groups"),
    ],
)
def test_what_does_not_fit_is_refused(changes, text):
    arguments = {"x": torch.rand(1, 4, 2), "delta": torch.rand(1, 4, 2), "A": -torch.ones(2, 3)}
    arguments |= {"B": torch.rand(1, 4, 3), "C": torch.rand(1, 4, 3)} | changes
    with pytest.raises(UserError, match=text):
        selective_scan(**arguments)
