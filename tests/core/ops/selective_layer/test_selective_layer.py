"""A mixer's inner part in one step against the operators one after the other, in float64."""

from __future__ import annotations

import pytest
import torch

from polymamba.core.ops.selective_layer import LayerWeights, selective_layer, selective_layer_reference

CHANNELS, STATES, RANK = 20, 5, 3
BACKWARD = torch.stack([torch.arange(7), torch.arange(7).flip(0)])


def made(paths: int | None, width: int = 4, bias: bool = True, batch: int = 2, length: int = 7, gated: bool = True):
    """Tokens and weights, float64, that want gradients; paths None: no paths axis."""
    g, own = torch.Generator().manual_seed(0), () if paths is None else (paths,)

    def normal(*shape):
        return (0.5 * torch.randn(*shape, generator=g, dtype=torch.float64)).requires_grad_()

    shapes = [
        (CHANNELS, 1, width),
        (CHANNELS,),
        (RANK + 2 * STATES, CHANNELS),
        (CHANNELS, RANK),
        (CHANNELS, STATES),
        (CHANNELS,),
    ]
    weights = [normal(*own, *shape) for shape in (*shapes, (CHANNELS,))]
    weights[1] = weights[1] if bias else None
    return normal(batch, length, CHANNELS * (2 if gated else 1)), LayerWeights(*weights)


def answers(call, x, gated, weights, order, merge, states=True):
    """Outputs and the gradients of everything; `states`: of the final states too."""
    kind = x.dtype
    outputs = call(x, gated, weights, order, merge)
    used = outputs if states else outputs[:1]
    loss = sum((out.to(kind) * torch.linspace(-1, 1, out.numel()).to(kind).view(out.shape)).sum() for out in used)
    wanted = [t for t in (x, *weights) if t is not None]
    return [*outputs, *torch.autograd.grad(loss, wanted)]


def single(x, weights):
    """The same in float32."""
    alone = [None if t is None else t.detach().float().requires_grad_() for t in (x, *weights)]
    return alone[0], LayerWeights(*alone[1:])


CASES = {
    "one path": ({"paths": None}, None, "sum"),
    "without a gate": ({"paths": None, "gated": False}, None, "sum"),
    "three taps, no bias": ({"paths": None, "width": 3, "bias": False}, None, "sum"),
    "one token": ({"paths": None, "length": 1}, None, "sum"),
    "two paths": ({"paths": 2}, BACKWARD, "sum"),
    "two paths, one sequence": ({"paths": 2, "batch": 1}, BACKWARD, "mean"),
    "two paths, shared": ({"paths": None}, BACKWARD, "mean"),
    "two paths, each its own": ({"paths": 2}, BACKWARD, "none"),
    "a path that ends early": (
        {"paths": 2},
        BACKWARD.clone().index_put_((torch.tensor(1), torch.tensor(6)), torch.tensor(-1)),
        "sum",
    ),
}


@pytest.mark.parametrize("states", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_outputs_and_gradients_are_those_of_the_operators_in_float64(case, states):
    options, order, merge = CASES[case]
    x, weights = made(**options)
    gated = options.get("gated", True)
    expected = answers(selective_layer_reference, x, gated, weights, order, merge, states)
    found = answers(selective_layer, *_with(x, gated, weights), order, merge, states)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        alone, many = single(x, weights)
        outputs = selective_layer(alone, gated, many, order, merge)
    assert all(torch.equal(one, other) for one, other in zip(outputs, found, strict=False))


def _with(x, gated, weights):
    alone, many = single(x, weights)
    return alone, gated, many


@pytest.mark.parametrize("bias", [True, False])
def test_parameters_may_be_lists_of_each_paths_own(bias):
    """The same to the bit, and each path's gradients, first and second ones, are its part of them."""
    x, weights = single(*made(2, bias=bias))
    lists = LayerWeights(*(None if t is None else [part.detach().requires_grad_() for part in t] for t in weights))
    own = x.detach().requires_grad_()

    def all_of(x, weights, wanted):
        outputs = selective_layer(x, True, weights, BACKWARD, "sum")
        first = torch.autograd.grad(sum(out.square().sum() for out in outputs), wanted, create_graph=True)
        return [*outputs, *first, *torch.autograd.grad(sum(g.square().sum() for g in first), wanted)]

    expected = all_of(x, weights, [x, *(t for t in weights if t is not None)])
    found = iter(all_of(own, lists, [own, *lists.flat()[0]]))
    for number, right in enumerate(expected):
        one_tensor = number < 4 or right.shape == x.shape
        got = next(found) if one_tensor else torch.stack([next(found), next(found)])
        torch.testing.assert_close(got, right, rtol=0, atol=0)
    assert next(found, None) is None


def test_gradients_have_gradients():
    def penalty(call, x, weights):
        y = call(x, True, weights, BACKWARD, "sum")[0]
        first = torch.autograd.grad(y.square().sum(), [x, *weights], create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), [x, *weights])

    x, weights = made(2)
    found, expected = penalty(selective_layer, *single(x, weights)), penalty(selective_layer_reference, x, weights)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-3, atol=1e-4)


def test_it_declines_what_is_not_plain():
    x, weights = made(None)
    assert selective_layer(x, True, weights, None, "sum") is None  # float64
    x, weights = single(x, weights)
    assert selective_layer(x, True, weights, None, "sum", backend="reference") is None
    assert selective_layer(x[:0], True, weights, None, "sum") is None
    with torch.autocast("cpu", torch.bfloat16):
        assert selective_layer(x, True, weights, None, "sum") is None
    assert (
        torch.func.vmap(lambda t: t if selective_layer(t, True, weights, None, "sum") is None else None)(x[None])
        is not None
    )
