"""Turned keys against the reference in float64, all gradients; layouts, dtypes, the operator as PyTorch sees it."""

from __future__ import annotations

import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.core.ops.turned_keys import ROTATIONS, registration, turned_keys, turned_keys_reference

# batch, paths, length, rank, groups, heads, states, pairs.
CASES = [
    (2, 1, 5, 1, 1, 3, 8, 2), (1, 1, 1, 1, 1, 1, 2, 1), (2, 3, 19, 2, 2, 4, 33, 8), (1, 2, 70, 4, 1, 2, 128, 32),
    (3, 1, 7, 1, 3, 3, 64, 32), (1, 1, 40, 1, 2, 6, 37, 17), (1, 4, 6, 3, 1, 5, 20, 5),
]  # fmt: skip


def made(batch, paths, length, rank, groups, heads, states, pairs, seed=0):
    g = torch.Generator().manual_seed(seed)
    keys = [torch.randn(batch, length, rank, groups, states, generator=g) for _ in range(2)]
    biases = [torch.randn(heads, rank, states, generator=g) for _ in range(2)]
    grads = [torch.randn(batch, paths, length, rank, heads, states, generator=g) for _ in range(2)]
    return [*keys, *biases, 6.3 * torch.rand(batch, paths, length, heads, pairs, generator=g)], grads


def answers(given, grads, rotation, backend, dtype=torch.float32):
    given = [each.to(dtype).requires_grad_() for each in given]
    out = turned_keys(*given, rotation, backend)
    return [*out, *torch.autograd.grad(out, given, [each.to(dtype) for each in grads])]


@pytest.mark.parametrize("rotation", ROTATIONS)
@pytest.mark.parametrize("case", CASES)
def test_matches_float64(case, rotation):
    given, grads = made(*case)
    expected = answers(given, grads, rotation, "reference", torch.float64)
    for found, right in zip(answers(given, grads, rotation, "cpu"), expected, strict=True):
        assert found.dtype == torch.float32
        assert found.shape == right.shape
        assert (found - right).abs().max() <= 2e-6 * max(1, right.abs().max())


@pytest.mark.parametrize("rotation", ROTATIONS)
@pytest.mark.parametrize("asked", [0, 1])
def test_only_one_of_them_is_asked_for(rotation, asked):
    given, grads = made(*CASES[2])

    def gradients(backend):
        inputs = [each.clone().requires_grad_() for each in given]
        out = turned_keys(*inputs, rotation, backend)[asked]
        return torch.autograd.grad(out, inputs, grads[asked], allow_unused=True, materialize_grads=True)

    for one, other in zip(gradients("cpu"), gradients("reference"), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rotation", ROTATIONS)
def test_tensors_that_lie_apart(rotation):
    """Parts of wider tensors, a gradient that is one number everywhere, and angles that are not the last of their tensor."""
    given, _ = made(*CASES[2])
    apart = [torch.stack([each, each], -1)[..., 0] for each in given]
    for inputs in (given, apart):
        for each in inputs:
            each.requires_grad_()
    one, other = (
        torch.autograd.grad(sum(each.sum() for each in turned_keys(*inputs, rotation, backend)), inputs)
        for inputs, backend in ((apart, "cpu"), (given, "reference"))
    )
    for found, right in zip(one, other, strict=True):
        torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-4)


def test_threads_do_not_change_a_bit():
    given, grads = made(*CASES[3])
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(answers(given, grads, "pairs", "cpu"))
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes_are_the_reference(dtype):
    keys, biases, angle = (lambda t: (t[:2], t[2:4], t[4]))(made(*CASES[0])[0])
    given = [*(each.to(dtype) for each in keys), *biases, angle]
    for found, right in zip(turned_keys(*given), turned_keys_reference(*given, False), strict=True):
        assert found.dtype == dtype
        assert torch.equal(found, right)


def test_no_tokens_and_shapes_that_do_not_fit():
    given, _ = made(*CASES[0])
    B, C, *others, angle = given
    assert turned_keys(B[:, :0], C[:, :0], *others, angle[:, :, :0])[0].shape == (2, 1, 0, 1, 3, 8)
    for place, text in enumerate(("C", "C", "B_bias", "C_bias", "angle")):
        wrong = [each[..., None] if i == place and i else each for i, each in enumerate(given)]
        if place:
            with pytest.raises(UserError, match=text):
                turned_keys(*wrong)
    with pytest.raises(UserError, match="pairs"):
        turned_keys(*given, "half")


@pytest.mark.parametrize("halves", [False, True])
def test_opcheck_and_second_gradients(halves):
    given = [each.requires_grad_() for each in made(*CASES[0])[0]]
    torch.library.opcheck(registration._forward, (*given, halves, "cpu", True))

    def second(backend):
        out = turned_keys(*given, ROTATIONS[halves], backend)
        first = torch.autograd.grad(sum(each.square().sum() for each in out), given, create_graph=True)
        return torch.autograd.grad(sum(each.square().sum() for each in first), given)

    for one, other in zip(second("cpu"), second("reference"), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
