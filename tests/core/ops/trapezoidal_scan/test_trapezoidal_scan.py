"""Mamba-3's recurrence: its definition by hand and by gradcheck, the fast form against it, and what is refused."""

from __future__ import annotations

import pytest
import torch
from dualities import trapezoidal_scan_call
from operators import relative_error

from polymamba.core.errors import UserError
from polymamba.core.ops.state_space_duality import state_space_duality
from polymamba.core.ops.tolerances import RELATIVE_ERROR
from polymamba.core.ops.trapezoidal_scan import TrapezoidalState, trapezoidal_scan

DOUBLE = {"dtype": torch.float64}


def scan(tensors, other, backend):
    """Output and the three parts of the state."""
    named = dict(tensors)
    parts = [named.pop(name, None) for name in ("h", "B_before", "x_before")]
    state = None if parts[0] is None else TrapezoidalState(*parts)
    out, end = trapezoidal_scan(**named, **other, initial_state=state, return_final_state=True, backend=backend)
    return {"out": out, "h": end.h, "B": end.B, "x": end.x}


def run(tensors, other, backend, dtype):
    given = {name: t.to(dtype).requires_grad_() for name, t in tensors.items()}
    found = scan(given, other, backend)
    g = torch.Generator().manual_seed(0)
    incoming = [torch.randn(t.shape, generator=g, dtype=torch.float64).to(t) for t in found.values()]
    gradients = torch.autograd.grad(list(found.values()), list(given.values()), incoming, materialize_grads=True)
    return found | {f"d{name}": d for name, d in zip(given, gradients, strict=True)}


@pytest.mark.parametrize("seed", range(200))
def test_random_calls_match_the_reference(seed):
    tensors, other = trapezoidal_scan_call(seed)
    expected, found = run(tensors, other, "reference", torch.float64), run(tensors, other, "cpu", torch.float32)
    errors = {name: relative_error(found[name], expected[name]) for name in expected}
    wrong = {
        name: e for name, e in errors.items() if e > RELATIVE_ERROR[torch.float32] and expected[name].norm() > 1e-30
    }
    assert not wrong, (wrong, {n: tuple(t.shape) for n, t in tensors.items()})


@pytest.mark.parametrize("seed", range(12))
def test_gradcheck(seed):
    tensors, other = trapezoidal_scan_call(seed, longest=5, states=3, paths=2)
    inputs = [t.double().requires_grad_() for t in tensors.values()]

    def call(*values):
        return tuple(scan(dict(zip(tensors, values, strict=True)), other, "reference").values())

    assert torch.autograd.gradcheck(call, inputs, fast_mode=True)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_written_out_by_hand(backend):
    x, log, dt, lam, B, C = (torch.rand(5, 1) for _ in range(6))
    shapes = [(1, 5, 1, 1, 1), *[(1, 5, 1)] * 3, *[(1, 5, 1, 1, 1)] * 2]
    arguments = [t.view(shape) for t, shape in zip((x, -log, dt, lam, B, C), shapes, strict=True)]
    h, before, expected = 0.0, 0.0, []
    for t in range(5):
        now = x[t] * B[t]
        h = torch.exp(-log[t]) * (h + (1 - lam[t]) * dt[t] * before) + lam[t] * dt[t] * now
        before = now
        expected.append(h * C[t])
    out = trapezoidal_scan(*arguments, backend=backend)
    torch.testing.assert_close(out.flatten(), torch.cat(expected))


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_without_the_step_before_it_is_the_scan_of_mamba_2(backend):
    x, dt, A = torch.randn(2, 80, 4, 5), torch.rand(2, 80, 4), -torch.rand(4)
    B, C, D = torch.randn(2, 80, 2, 6), torch.randn(2, 80, 2, 6), torch.randn(4)
    seq_idx = (torch.arange(80) // 30).expand(2, -1)
    expected = state_space_duality(x, dt, A, B, C, D, seq_idx=seq_idx, backend=backend)
    found = trapezoidal_scan(
        x[:, :, None],
        dt * A,
        dt,
        torch.ones_like(dt),
        B[:, :, None],
        C[:, :, None],
        D,
        seq_idx=seq_idx,
        backend=backend,
    )
    torch.testing.assert_close(found[:, :, 0], expected)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("seed", range(10))
def test_pieces_with_the_state_carried_equal_the_whole(seed, backend):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 90, 3, 4, 5, generator=g)
    steps = [-torch.rand(2, 90, 4, generator=g), *(torch.rand(2, 90, 4, generator=g) for _ in range(2))]
    B, C = (torch.randn(2, 90, 3, 4, 6, generator=g) for _ in range(2))
    seq_idx = (torch.rand(2, 90, generator=g) < 0.03).int().cumsum(1)
    seq_idx[:, [0, 1, 40]] = seq_idx[:, [1, 1, 39]]
    whole, end = trapezoidal_scan(x, *steps, B, C, seq_idx=seq_idx, return_final_state=True, backend=backend)
    state, pieces = None, []
    for piece in (slice(0, 1), slice(1, 1), slice(1, 40), slice(40, 90)):
        parts = [t[:, piece] for t in (x, *steps, B, C)]
        same = seq_idx[:, piece]
        out, state = trapezoidal_scan(
            *parts, seq_idx=same, initial_state=state, return_final_state=True, backend=backend
        )
        pieces.append(out)
    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(tuple(state), tuple(end), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"merge": "product"}, "merge"),
        ({"backend": "cuda"}, "backend"),
        ({"x": torch.rand(1, 4, 2, 3)}, "x has the wrong shape"),
        ({"dt": torch.rand(1, 5, 2)}, "dt has the wrong shape"),
        ({"trapezoid": torch.rand(1, 4, 3)}, "trapezoid has the wrong shape"),
        ({"B": torch.rand(1, 4, 2, 1, 5)}, "B has the wrong shape"),
        ({"D": torch.rand(3)}, "D has the wrong shape"),
        ({"order": torch.zeros(1, 4)}, "integer"),
        ({"initial_state": TrapezoidalState(*(torch.rand(1, 1, 2, 3) for _ in range(3)))}, "initial_state.h"),
        ({"B": torch.rand(1, 4, 1, 3, 5), "C": torch.rand(1, 4, 1, 3, 5)}, "groups"),
    ],
)
def test_what_does_not_fit_is_refused(changes, text):
    arguments = {"x": torch.rand(1, 4, 1, 2, 3), "log_decay": -torch.rand(1, 4, 2), "dt": torch.rand(1, 4, 2)}
    arguments |= {"trapezoid": torch.rand(1, 4, 2), "B": torch.rand(1, 4, 1, 1, 5), "C": torch.rand(1, 4, 1, 1, 5)}
    with pytest.raises(UserError, match=text):
        trapezoidal_scan(**arguments | changes)
