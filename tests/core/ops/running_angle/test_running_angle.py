"""The running angle: against sums in float64, over restarts and long sequences, all gradients, the operator as PyTorch sees it."""

from __future__ import annotations

import math

import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.core.ops.running_angle import registration, running_angle

DOUBLE = {"dtype": torch.float64}


def test_angles_stay_exact_however_long_the_sequence():
    step = torch.full((1, 200_000, 1), 0.7)
    expected = (step.double().cumsum(1)).remainder(2 * math.pi)
    assert (running_angle(step) - expected).abs().max() < 1e-6


def test_angles_restart_and_go_on():
    step = torch.rand(2, 9, 3, **DOUBLE, requires_grad=True)
    initial = torch.rand(2, 3, **DOUBLE, requires_grad=True)
    restart = torch.zeros(2, 9, dtype=torch.bool)
    restart[0, [3, 4]] = restart[1, 7] = True
    angle, rows = initial, []
    for s in range(9):
        angle = angle.masked_fill(restart[:, s, None], 0) + step[:, s]
        rows.append(angle)
    expected = torch.stack(rows, 1)
    found = running_angle(step, restart, initial)
    torch.testing.assert_close(found, expected.remainder(2 * math.pi))
    weight = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad((found * weight).sum(), (step, initial)),
        torch.autograd.grad((expected * weight).sum(), (step, initial)),
    )
    torch.testing.assert_close(running_angle(step[:, :1], None, initial), running_angle(step, None, initial)[:, :1])


def made(batch, steps, *inner, seed=0):
    g = torch.Generator().manual_seed(seed)
    increment, initial = 3 * torch.randn(batch, steps, *inner, generator=g), 6 * torch.rand(batch, *inner, generator=g)
    restart = torch.rand(batch, steps, generator=g) < 0.2
    return increment, restart, initial, torch.randn(batch, steps, *inner, generator=g)


def apart(one, other):
    """The largest distance between angles, round the circle."""
    between = (one.double() - other).abs()
    return torch.minimum(between, (2 * math.pi - between).abs()).max()


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("shape", [(2, 9, 3, 5), (1, 2, 1), (3, 50, 33), (1, 300, 2, 16)])
def test_matches_float64(shape, begun, restarts):
    increment, restart, initial, grad = made(*shape)
    restart, initial = restart if restarts else None, initial if begun else None

    def answers(backend, dtype):
        given = [each.to(dtype).requires_grad_() for each in (increment, initial) if each is not None]
        angle = running_angle(given[0], restart, given[1] if begun else None, backend)
        return angle, torch.autograd.grad(angle, given, grad.to(dtype))

    (found, gradients), (right, expected) = answers("cpu", torch.float32), answers("reference", torch.float64)
    assert found.dtype == torch.float32
    assert found.min() >= 0
    assert found.max() <= 2 * math.pi + 1e-6
    assert apart(found, right) < 1e-6
    for one, other in zip(gradients, expected, strict=True):
        assert (one - other).abs().max() <= 1e-6 * max(1, other.abs().max())


def test_nothing_survives_a_restart():
    increment, restart, initial, _ = made(2, 9, 4)
    increment[:, 2], restart = math.nan, torch.arange(9).expand(2, 9) == 5
    angle = running_angle(increment, restart, initial)
    assert angle[:, 2:5].isnan().all()
    torch.testing.assert_close(angle[:, 5:], running_angle(increment[:, 5:]))


def test_steps_that_turn_many_times_either_way():
    increment = torch.tensor([300.0, -700.0, 1.5, -0.25, 1e4]).repeat(1, 100)[..., None]
    assert apart(running_angle(increment), increment.double().cumsum(1).remainder(2 * math.pi)) < 1e-5


def test_threads_do_not_change_a_bit():
    increment, restart, initial, _ = made(2, 40, 50)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(running_angle(increment, restart, initial))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)


def test_no_steps_and_shapes_that_do_not_fit():
    increment, restart, initial, _ = made(2, 9, 4)
    assert running_angle(increment[:, :0], restart[:, :0], initial).shape == (2, 0, 4)
    for wrong, text in (((increment, restart[:, :3]), "restart"), ((increment, None, initial[:1]), "initial")):
        with pytest.raises(UserError, match=text):
            running_angle(*wrong)


def test_opcheck_and_second_gradients():
    increment, restart, initial, _ = (each if i == 1 else each.requires_grad_() for i, each in enumerate(made(2, 6, 3)))
    torch.library.opcheck(registration._forward, (increment, restart, initial, "cpu"))

    def second(backend):
        out = running_angle(increment, restart, initial, backend).square().sum()
        first = torch.autograd.grad(out, [increment, initial], create_graph=True)
        return torch.autograd.grad(sum(each.square().sum() for each in first), [increment, initial])

    for one, other in zip(second("cpu"), second("reference"), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
