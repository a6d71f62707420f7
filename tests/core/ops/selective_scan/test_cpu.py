"""The Numba scan against the float64 reference, and what threads, forks and wrong orders do to it."""

from __future__ import annotations

import multiprocessing

import pytest
import torch
from operators import assert_matches_reference, relative_error, run, selective_scan_call

from polymamba.core.errors import UserError
from polymamba.core.ops.selective_scan import selective_scan


@pytest.mark.parametrize("seed", range(200))
def test_random_calls_match_the_reference(seed):
    assert_matches_reference(selective_scan, *selective_scan_call(seed), backend="cpu")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_converts_at_the_edge(dtype):
    tensors, other = selective_scan_call(4)
    rounded = {name: t.to(dtype).float() if name in ("x", "delta", "B", "C", "z") else t for name, t in tensors.items()}
    given = {name: t.to(dtype) if name in ("x", "delta", "B", "C", "z") else t for name, t in rounded.items()}
    out, state = selective_scan(**given, **other, backend="cpu")
    expected, expected_state = selective_scan(**rounded, **other, backend="cpu")
    assert out.dtype == dtype
    assert torch.equal(out, expected.to(dtype))
    assert torch.equal(state, expected_state)
    assert state.dtype == torch.float32


def test_strided_views_need_no_copy_and_give_the_same_result():
    g = torch.Generator().manual_seed(0)
    both = torch.randn(2, 33, 40, generator=g)
    x, z = both.chunk(2, -1)
    projected = torch.randn(2, 33, 10, generator=g)
    B, C = projected[..., 2:6], projected[..., 6:]
    A, delta = -torch.rand(20, 4, generator=g), torch.rand(2, 33, 20, generator=g)
    views = selective_scan(x, delta, A, B, C, z=z, backend="cpu")
    copies = selective_scan(*(t.contiguous() for t in (x, delta, A, B, C)), z=z.contiguous(), backend="cpu")
    assert torch.equal(views, copies)


@pytest.mark.parametrize("length", [0, 1])
def test_shortest_sequences(length):
    h = torch.randn(2, 5, 3)
    x, delta, B = torch.randn(2, length, 5), torch.rand(2, length, 5), torch.randn(2, length, 3)
    arguments = (x, delta, -torch.rand(5, 3), B, B)
    out, state = selective_scan(*arguments, initial_state=h, return_final_state=True, backend="cpu")
    expected, expected_state = selective_scan(*arguments, initial_state=h, return_final_state=True, backend="reference")
    assert out.shape == (2, length, 5)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(state, expected_state)


@pytest.mark.parametrize("batch", [0, 1])
def test_empty_batch_and_no_gradient(batch):
    out = selective_scan(
        torch.randn(batch, 4, 3),
        torch.rand(batch, 4, 3),
        -torch.ones(3, 2),
        torch.ones(batch, 4, 2),
        torch.ones(batch, 4, 2),
    )
    assert out.shape == (batch, 4, 3)
    assert not out.requires_grad


@pytest.mark.parametrize("delta", [-200.0, -60.0, -20.0, 0.0, 20.0, 200.0])
def test_extreme_step_sizes_stay_finite_and_right(delta):
    x = torch.randn(1, 6, 9)
    tensors = {"x": x, "delta": torch.full((1, 6, 9), delta), "A": -torch.rand(9, 4) * 16, "B": torch.randn(1, 6, 4)}
    tensors |= {"C": torch.randn(1, 6, 4), "D": torch.ones(9)}
    other = {"delta_softplus": True, "return_final_state": True}
    found, expected = (
        run(selective_scan, tensors, other, "cpu"),
        run(selective_scan, tensors, other, "reference", torch.float64),
    )
    for name in expected:
        assert torch.isfinite(found[name]).all(), name
        assert (
            relative_error(found[name], expected[name]) < 2e-5 or (found[name] - expected[name]).abs().max() < 1e-30
        ), name


def test_nan_comes_out_where_it_went_in():
    x = torch.randn(1, 9, 17)
    x[0, 4, 3] = float("nan")
    out = selective_scan(
        x, torch.rand(1, 9, 17), -torch.ones(17, 2), torch.ones(1, 9, 2), torch.ones(1, 9, 2), backend="cpu"
    )
    assert out[0, 4:, 3].isnan().all()
    assert out[0, :4].isfinite().all()
    assert out[..., :3].isfinite().all()


def test_bit_identical_whatever_the_number_of_threads():
    tensors, other = selective_scan_call(11)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3, 1):
            torch.set_num_threads(threads)
            results.append(run(selective_scan, tensors, other, "cpu"))
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        assert all(torch.equal(result[name], results[0][name]) for name in result)


def test_continuing_from_the_final_state_equals_one_run():
    x, B = torch.randn(2, 50, 20), torch.randn(2, 50, 8)
    delta, A = torch.rand(2, 50, 20), -torch.rand(20, 8)
    whole = selective_scan(x, delta, A, B, B, backend="cpu")
    state, pieces = None, []
    for piece in (slice(0, 1), slice(1, 18), slice(18, 50)):
        out, state = selective_scan(
            x[:, piece], delta[:, piece], A, B[:, piece], B[:, piece], initial_state=state, return_final_state=True
        )
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
    x, B = torch.randn(1, 4, 2), torch.randn(1, 4, 3)
    with pytest.raises(UserError, match=text):
        selective_scan(x, x, -torch.ones(2, 3), B, B, order=torch.tensor(order), backend="cpu")


def _scan_in_child(queue):
    torch.manual_seed(0)
    x, B = torch.randn(2, 64, 96), torch.randn(2, 64, 4)
    queue.put(selective_scan(x, x.abs(), -torch.ones(96, 4), B, B, backend="cpu").sum().item())


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_safe_after_a_fork():
    torch.manual_seed(0)
    x, B = torch.randn(2, 64, 96), torch.randn(2, 64, 4)
    expected = selective_scan(x, x.abs(), -torch.ones(96, 4), B, B, backend="cpu").sum().item()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    children = [context.Process(target=_scan_in_child, args=(queue,)) for _ in range(3)]
    for child in children:
        child.start()
    results = [queue.get(timeout=60) for _ in children]
    for child in children:
        child.join(timeout=60)
        assert child.exitcode == 0
    assert results == pytest.approx([expected] * 3, rel=1e-4)
