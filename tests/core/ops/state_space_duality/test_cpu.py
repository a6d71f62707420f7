"""Chunked matrix products against the float64 step loop, for the public function and for the operator on dense sequences."""

from __future__ import annotations

import itertools

import pytest
import torch
from dualities import dense_duality_call, state_space_duality_call
from operators import assert_matches_reference, relative_error, run

from polymamba.core.errors import UserError
from polymamba.core.ops.state_space_duality import cpu, state_space_duality
from polymamba.core.ops.state_space_duality.reference import dense_reference
from polymamba.core.ops.state_space_duality.registration import state_space_duality_op
from polymamba.core.ops.tolerances import RELATIVE_ERROR


@pytest.mark.parametrize("seed", range(200))
def test_random_calls_match_the_reference(seed):
    assert_matches_reference(state_space_duality, *state_space_duality_call(seed), backend="cpu")


def dense(tensors, other, dtype, operator, *extra):
    """Outputs and gradients of one implementation of the operator on dense sequences."""
    given = {n: None if t is None else t.to(dtype).requires_grad_() for n, t in tensors.items()}
    found = operator(
        *(given[n] for n in ("x", "log_decay", "weight", "own_weight", "B", "C")), other["restart"],
        given["initial_state"], other["rank"], given["skip"], *extra,
    )  # fmt: skip
    g = torch.Generator().manual_seed(0)
    incoming = [torch.randn(t.shape, generator=g, dtype=torch.float64).to(t) for t in found]
    wanted = {n: t for n, t in given.items() if t is not None}
    gradients = torch.autograd.grad(found, list(wanted.values()), incoming, materialize_grads=True)
    return dict(zip(("y", "state"), found, strict=True)) | dict(zip(wanted, gradients, strict=True))


@pytest.mark.parametrize("seed", range(100))
def test_random_dense_calls_match_the_step_loop(seed):
    tensors, other = dense_duality_call(seed)
    expected = dense(tensors, other, torch.float64, dense_reference)
    found = dense(tensors, other, torch.float32, state_space_duality_op, "cpu")
    errors = {name: relative_error(found[name], expected[name]) for name in expected}
    # What a state that has all but died tells is a number below float32's.
    alive = {name: error for name, error in errors.items() if expected[name].norm() > 1e-30}
    assert all(error <= RELATIVE_ERROR[torch.float32] for error in alive.values()), errors
    assert all(found[name].norm() < 1e-30 for name in errors.keys() - alive.keys()), errors


@pytest.mark.parametrize("rows", [1, 4, 7, 64])
@pytest.mark.parametrize("heads", [1, 2**30])
def test_chunks_and_work_items_do_not_change_the_result(rows, heads, monkeypatch):
    monkeypatch.setattr(cpu, "CHUNK_ROWS", rows)
    monkeypatch.setattr(cpu, "HEADS_PER_ITEM", heads)
    monkeypatch.setattr(cpu, "ITEMS_WANTED", 1)
    monkeypatch.setattr(cpu, "_plan", cpu._plan.__wrapped__)
    for seed in range(6):
        assert_matches_reference(state_space_duality, *state_space_duality_call(seed, longest=60), backend="cpu")


@pytest.mark.parametrize("only", ["out", "state"])
def test_gradient_of_one_output_alone(only):
    tensors, other = state_space_duality_call(3)
    found = {}
    for backend, dtype in (("reference", torch.float64), ("cpu", torch.float32)):
        given = [t.to(dtype).requires_grad_() for t in tensors.values()]
        out, state = state_space_duality(**dict(zip(tensors, given, strict=True)), **other, backend=backend)
        wanted = (out if only == "out" else state).square().sum()
        found[backend] = torch.autograd.grad(wanted, given, materialize_grads=True)
    for a, b in zip(found["cpu"], found["reference"], strict=True):
        assert relative_error(a, b) < 2e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_converts_at_the_edge(dtype):
    tensors, other = state_space_duality_call(4)
    tensors = {name: t for name, t in tensors.items() if name not in ("D", "z")}
    halves = ("x", "dt", "B", "C")
    rounded = {name: t.to(dtype).float() if name in halves else t for name, t in tensors.items()}
    given = {name: t.to(dtype) if name in halves else t for name, t in rounded.items()}
    other["merge"] = "none"
    out, state = state_space_duality(**given, **other, backend="cpu")
    expected, expected_state = state_space_duality(**rounded, **other, backend="cpu")
    assert out.dtype == dtype
    assert torch.equal(out, expected.to(dtype))
    assert torch.equal(state, expected_state)
    assert state.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("seed", range(10))
def test_half_precision_with_every_argument(seed, dtype):
    tensors, other = state_space_duality_call(seed)
    half = {n: t.to(dtype) if n in ("x", "dt", "B", "C", "z") else t for n, t in tensors.items()}
    expected, _ = state_space_duality(**{n: t.double() for n, t in half.items()}, **other, backend="reference")
    out, _ = state_space_duality(**half, **other, backend="cpu")
    assert out.dtype == dtype
    assert relative_error(out, expected) <= RELATIVE_ERROR[dtype]


def test_float64_takes_the_reference():
    tensors, other = state_space_duality_call(5)
    tensors = {name: t.double() for name, t in tensors.items()}
    found, expected = (state_space_duality(**tensors, **other, backend=b) for b in ("auto", "reference"))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_strided_views_give_the_same_result():
    both = torch.randn(3, 70, 4 * 5 + 2 * 2 * 6)
    x, B, C = both.split([20, 12, 12], -1)
    x, B, C = x.unflatten(-1, (4, 5)), B.unflatten(-1, (2, 6)), C.unflatten(-1, (2, 6))
    dt, A = torch.rand(3, 70, 4), -torch.rand(4)
    views = state_space_duality(x, dt, A, B, C, backend="cpu")
    assert torch.equal(views, state_space_duality(*(t.contiguous() for t in (x, dt, A, B, C)), backend="cpu"))


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_empty_sequence_and_batch(backend):
    for batch, length in ((2, 0), (0, 3)):
        x, dt, B = torch.randn(batch, length, 4, 5), torch.rand(batch, length, 4), torch.randn(batch, length, 1, 3)
        h = torch.randn(batch, 4, 5, 3)
        given = [t.requires_grad_() for t in (x, dt, B, h)]
        out, state = state_space_duality(
            x, dt, -torch.rand(4), B, B, initial_state=h, return_final_state=True, backend=backend
        )
        assert out.shape == x.shape
        if not length:
            torch.testing.assert_close(state, h)
        gradients = torch.autograd.grad(out.sum() + state.sum(), given, materialize_grads=True)
        assert torch.equal(gradients[3], torch.ones_like(h))


@pytest.mark.parametrize("rank", [1, 3])
def test_one_step_needs_no_chunk(rank, monkeypatch):
    monkeypatch.setattr(cpu, "_Call", None)
    for own, restart in itertools.product((None, torch.rand(3, 1, 6)), (None, torch.tensor([[True], [False], [True]]))):
        x, B, C = (torch.randn(3, rank, *rest) for rest in ((6, 5), (2, 7), (2, 7)))
        given = (x, -torch.rand(3, 1, 6), torch.rand(3, 1, 6), own, B, C, restart, torch.randn(3, 6, 5, 7))
        found = cpu.forward(*given, rank, save=False)[:2]
        exact = (t.double() if torch.is_tensor(t) and t.is_floating_point() else t for t in given)
        for a, b in zip(found, dense_reference(*exact, rank), strict=True):
            assert relative_error(a, b) < 1e-6


@pytest.mark.parametrize("dt", [1e-8, 1.0, 200.0, 1e6])
def test_extreme_decays_stay_finite_and_right(dt):
    step = torch.full((1, 140, 2), dt)
    step[:, ::3] = 1e-3
    tensors = {"x": torch.randn(1, 140, 2, 5), "dt": step, "A": -torch.tensor([16.0, 0.5])}
    tensors |= {"B": torch.randn(1, 140, 1, 4), "C": torch.randn(1, 140, 1, 4)}
    found = run(state_space_duality, tensors, {"return_final_state": True}, "cpu")
    expected = run(state_space_duality, tensors, {"return_final_state": True}, "reference", torch.float64)
    for name in expected:
        assert torch.isfinite(found[name]).all(), name
        assert relative_error(found[name], expected[name]) < 2e-5, name


def test_small_decays_after_a_large_one_keep_their_digits():
    step = torch.full((1, 64, 1), 1e-2)
    step[:, 0] = 5e4
    tensors = {"x": torch.randn(1, 64, 1, 8), "dt": step, "A": -torch.ones(1)}
    tensors |= {"B": torch.rand(1, 64, 1, 4), "C": torch.rand(1, 64, 1, 4)}
    tensors["x"][:, 0] = 0
    found = run(state_space_duality, tensors, {"return_final_state": True}, "cpu")
    expected = run(state_space_duality, tensors, {"return_final_state": True}, "reference", torch.float64)
    assert relative_error(found["out"], expected["out"]) < 1e-6


def test_nothing_crosses_a_restart():
    x, B = torch.randn(1, 30, 2, 3), torch.randn(1, 30, 1, 4)
    x[:, :15] = 1e30
    seq_idx = (torch.arange(30) >= 15).int()[None]
    packed = state_space_duality(x, torch.rand(1, 30, 2), -torch.ones(2) * 1e-9, B, B, seq_idx=seq_idx, backend="cpu")
    assert packed[:, 15:].abs().max() < 1e3


def test_bit_identical_from_run_to_run():
    for seed in range(6):
        first, second = (run(state_space_duality, *state_space_duality_call(seed), "cpu") for _ in range(2))
        assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_continuing_from_the_final_state_equals_one_run(backend):
    x, B, dt, A = torch.randn(2, 150, 4, 5), torch.randn(2, 150, 2, 8), torch.rand(2, 150, 4), -torch.rand(4)
    whole = state_space_duality(x, dt, A, B, B, backend=backend)
    state, pieces = None, []
    for piece in (slice(0, 1), slice(1, 2), slice(2, 18), slice(18, 150)):
        out, state = state_space_duality(
            x[:, piece], dt[:, piece], A, B[:, piece], B[:, piece], initial_state=state, return_final_state=True,
            backend=backend,
        )  # fmt: skip
        pieces.append(out)
    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("order", "text"),
    [
        ([[0, 1, 4]], "leaves the tokens"),
        ([[0, -2, 1]], "leaves the tokens"),
        ([[0, 2, 2]], "visits a token twice"),
        ([[0, -1, 2]], "goes on after its end"),
    ],
)
def test_wrong_orders_are_refused(order, text):
    x, B = torch.randn(1, 4, 2, 3), torch.randn(1, 4, 1, 3)
    with pytest.raises(UserError, match=text):
        state_space_duality(x, x[..., 0], -torch.ones(2), B, B, order=torch.tensor(order), backend="cpu")


def test_autocast_does_not_reach_the_sums():
    tensors, other = state_space_duality_call(3)
    expected = state_space_duality(**tensors, **other, backend="cpu")
    with torch.autocast("cpu", torch.bfloat16):
        found = state_space_duality(**tensors, **other, backend="cpu")
    assert all(map(torch.equal, found, expected))
