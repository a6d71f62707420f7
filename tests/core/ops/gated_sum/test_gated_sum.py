"""The gated sum against the reference in float64, all gradients; layouts, dtypes, the operator as PyTorch sees it."""

from __future__ import annotations

import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.core.ops.gated_sum import gated_sum, gated_sum_reference, registration

# batch, paths, length, rank, channels.
CASES = [(2, 1, 5, 1, 16), (1, 1, 1, 1, 1), (2, 3, 19, 2, 33), (1, 2, 70, 4, 96), (3, 1, 7, 3, 15)]


def made(batch, paths, length, rank, channels, scaled, seed=0):
    g = torch.Generator().manual_seed(seed)
    y, z = (
        torch.randn(batch, paths, length, rank, channels, generator=g),
        4 * torch.randn(batch, length, channels, generator=g),
    )
    scales = [1 + torch.randn(rank, channels, generator=g) for _ in range(2)] if scaled else [None, None]
    return [y, z, *scales], torch.randn(batch, paths, length, channels, generator=g)


def answers(given, grad, backend, dtype=torch.float32):
    given = [None if each is None else each.to(dtype).requires_grad_() for each in given]
    out = gated_sum(*given, backend)
    return [out, *torch.autograd.grad(out, [each for each in given if each is not None], grad.to(dtype))]


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_matches_float64(case, scaled):
    given, grad = made(*case, scaled)
    expected = answers(given, grad, "reference", torch.float64)
    for found, right in zip(answers(given, grad, "cpu"), expected, strict=True):
        assert found.dtype == torch.float32
        assert (found - right).abs().max() <= 2e-6 * max(1, right.abs().max())


def test_a_part_of_a_projection():
    """z and y as parts of wider tensors, and a gradient that is one number everywhere."""
    wide, y = torch.randn(2, 6, 40).requires_grad_(), torch.randn(2, 1, 6, 1, 80)[..., ::2].requires_grad_()
    half = wide.split([8, 32], -1)[1]
    one, other = (
        torch.autograd.grad(gated_sum(y[..., :32], half, backend=b).sum(), (wide, y)) for b in ("cpu", "reference")
    )
    for found, right in zip(one, other, strict=True):
        torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-5)


def test_threads_do_not_change_a_bit():
    given, grad = made(*CASES[3], True)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(answers(given, grad, "cpu"))
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes_are_the_reference(dtype):
    (y, z, *scales), _ = made(*CASES[2], True)
    given = (y.to(dtype), z.to(dtype), *scales)
    found = gated_sum(*given)
    assert found.dtype == dtype
    assert torch.equal(found, gated_sum_reference(*given)[0])


def test_no_tokens_and_shapes_that_do_not_fit():
    (y, z, a, b), _ = made(*CASES[2], True)
    assert gated_sum(y[:, :, :0], z[:, :0], a, b).shape == (2, 3, 0, 33)
    for wrong, text in (((y, z[..., :5], a, b), "z"), ((y, z, a[:1], b), "z_scale"), ((y, z, a, b[None]), "y_scale")):
        with pytest.raises(UserError, match=text):
            gated_sum(*wrong)


@pytest.mark.parametrize("scaled", [False, True])
def test_opcheck_and_second_gradients(scaled):
    given = made(*CASES[0], scaled)[0]
    present = [each.requires_grad_() for each in given if each is not None]
    torch.library.opcheck(registration._forward, (*given, "cpu"))

    def second(backend):
        first = torch.autograd.grad(gated_sum(*given, backend).square().sum(), present, create_graph=True)
        return torch.autograd.grad(sum(each.square().sum() for each in first), present)

    for one, other in zip(second("cpu"), second("reference"), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
