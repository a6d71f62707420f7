"""The gated norm against the reference in float64, all gradients; layouts, dtypes, the operator as PyTorch sees it."""

from __future__ import annotations

import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.core.ops.gated_norm import gated_norm, gated_norm_reference, registration

CASES = [((3, 5), 1), ((2, 7, 16), 1), ((70, 33), 1), ((1, 40, 96), 4), ((33, 15), 3), ((4, 1536), 1), ((1, 1), 1)]


def made(shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    x, z = torch.randn(shape, generator=g) * 3, torch.randn(shape, generator=g) * 4
    return x, z, 1 + torch.randn(shape[-1], generator=g), torch.randn(shape, generator=g)


def test_without_a_gate_it_is_the_rms_norm():
    for shape, groups in CASES:
        x, _, weight, grad = made(shape)
        for dtype in (torch.float32, torch.float64):
            x, weight, grad = (each.to(dtype).detach().requires_grad_() for each in (x, weight, grad))
            out = gated_norm(x, None, weight, groups, eps=1e-5)
            mean = x.double().unflatten(-1, (groups, -1)).square().mean(-1, keepdim=True)
            right = (x.unflatten(-1, (groups, -1)) / (mean + 1e-5).sqrt()).flatten(-2) * weight
            found, expected = (torch.autograd.grad(y.double(), [x, weight], grad.double()) for y in (out, right))
            for one, other in zip((out, *found), (right, *expected), strict=True):
                assert one.dtype == dtype
                assert (one - other).abs().max() <= 2e-6 * max(1, other.abs().max())
    x, weight = (torch.randn(shape, requires_grad=True) for shape in ((3, 8), (8,)))
    torch.library.opcheck(registration._forward, (x, None, weight, 1, False, 1e-5, "cpu"))


def answers(given, grad, groups, last, backend, dtype=torch.float32):
    given = [each.to(dtype).requires_grad_() for each in given]
    out = gated_norm(*given, groups, last, 1e-5, backend)
    return [out, *torch.autograd.grad(out, given, grad.to(dtype))]


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(("shape", "groups"), CASES)
def test_matches_float64(shape, groups, last):
    *given, grad = made(shape)
    expected = answers(given, grad, groups, last, "reference", torch.float64)
    for found, right in zip(answers(given, grad, groups, last, "cpu"), expected, strict=True):
        assert found.dtype == torch.float32
        assert (found - right).abs().max() <= 2e-6 * max(1, right.abs().max())


@pytest.mark.parametrize("last", [False, True])
def test_rows_that_lie_apart(last):
    """Halves of a projection, as a mixer has them, and a gradient that is one number everywhere."""
    both = torch.randn(2, 40, 64).requires_grad_()
    weight = torch.randn(32)
    found = gated_norm(*both.chunk(2, -1), weight, 2, last, backend="cpu")
    expected = gated_norm_reference(*both.chunk(2, -1), weight, 2, last, 1e-5)[0]
    torch.testing.assert_close(found, expected)
    one, other = (torch.autograd.grad(each.sum(), both)[0] for each in (found, expected))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_threads_do_not_change_a_bit():
    *given, grad = made((2, 100, 48))
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(answers(given, grad, 1, False, "cpu"))
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes_are_the_reference(dtype):
    x, z, weight, _ = (each.to(dtype) for each in made((3, 8)))
    assert torch.equal(gated_norm(x, z, weight), gated_norm_reference(x, z, weight, 1, False, 1e-5)[0])


def test_a_gate_for_several_paths_and_no_rows():
    x, z, weight, _ = made((2, 4, 6))
    paths = gated_norm(x[:, None].expand(-1, 3, -1, -1), z[:, None], weight)
    torch.testing.assert_close(paths[:, 1], gated_norm(x, z, weight))
    assert gated_norm(x[:0], z[:0], weight).shape == (0, 4, 6)
    with pytest.raises(UserError, match="weight"):
        gated_norm(x, z, weight[:5])


@pytest.mark.parametrize("last", [False, True])
def test_opcheck_and_second_gradients(last):
    x, z, weight, _ = (each.requires_grad_() for each in made((3, 8)))
    torch.library.opcheck(registration._forward, (x, z, weight, 2, last, 1e-5, "cpu"))

    def second(backend):
        out = gated_norm(x, z, weight, 2, last, backend=backend).square().sum()
        [dx] = torch.autograd.grad(out, x, create_graph=True)
        return torch.autograd.grad(dx.square().sum(), [x, z, weight])

    for one, other in zip(second("cpu"), second("reference"), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
