"""What torch.func, torch.vmap, forward mode and gradients of gradients get from every operator: what the reference gives."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import forward_ad

from polymamba.core.errors import UserError
from polymamba.core.ops.causal_conv1d import causal_conv1d
from polymamba.core.ops.causal_conv1d import registration as convolution
from polymamba.core.ops.linear import linear
from polymamba.core.ops.registration import wants_gradient
from polymamba.core.ops.selective_scan import selective_scan
from polymamba.core.ops.state_space_duality import state_space_duality
from polymamba.core.ops.trapezoidal_scan import trapezoidal_scan

# torch's forward mode itself uses torch.jit.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
LENGTH = 4
REVERSE = torch.arange(LENGTH).flip(0)[None]


def convolve(x, weight, bias, state, **other):
    return causal_conv1d(x, weight, bias, "silu", initial_state=state, return_final_state=True, **other)


def s6(x, delta, A, B, C, D, z, **other):
    return selective_scan(
        x, delta, -A.exp(), B, C, D, z, delta_softplus=True, order=REVERSE, return_final_state=True, **other
    )


def ssd(x, dt, A, B, C, D, **other):
    return state_space_duality(x, dt, -A.exp(), B, C, D, dt_softplus=True, return_final_state=True, **other)


def trapezoid(x, log_decay, dt, share, B, C, **other):
    y, state = trapezoidal_scan(x, -log_decay.exp(), dt.exp(), share.sigmoid(), B, C, return_final_state=True, **other)
    return y, state.h


def product(x, weight, backend=None):
    return linear(x, weight), x.sum()


ROWS = {
    "causal_conv1d": (convolve, [(2, LENGTH, 6), (6, 3), (6,), (2, 6, 2)]),
    "selective_scan": (
        s6,
        [(2, LENGTH, 6), (2, LENGTH, 6), (6, 3), (2, LENGTH, 3), (2, LENGTH, 3), (6,), (2, LENGTH, 6)],
    ),
    "state_space_duality": (ssd, [(2, LENGTH, 2, 3), (2, LENGTH, 2), (2,), (2, LENGTH, 1, 3), (2, LENGTH, 1, 3), (2,)]),
    "trapezoidal_scan": (trapezoid, [(2, LENGTH, 1, 2, 3), *[(2, LENGTH, 2)] * 3, *[(2, LENGTH, 1, 1, 3)] * 2]),
    "linear": (product, [(2, 1, 6), (5, 6)]),
}
operators = pytest.mark.parametrize("name", ROWS)


def made(name, entries=None):
    generator = torch.Generator().manual_seed(0)
    function, shapes = ROWS[name]
    return function, [0.5 * torch.randn(*(entries or ()), *shape, generator=generator) for shape in shapes]


def loss(function, backend):
    def of(*tensors):
        y, state = function(*tensors, backend=backend)
        return y.square().sum() + (0 if state is None else state.sin().sum())

    return of


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@operators
@pytest.mark.parametrize("grad", [False, True])
def test_forward_mode(name, grad):
    function, tensors = made(name)
    tangents = [torch.ones_like(t) for t in tensors]
    expected = torch.func.jvp(lambda *t: function(*t, backend="reference"), tuple(tensors), tuple(tangents))[1][0]
    with torch.set_grad_enabled(grad), forward_ad.dual_level():
        dual = [forward_ad.make_dual(t.requires_grad_(grad), d) for t, d in zip(tensors, tangents, strict=True)]
        close(forward_ad.unpack_dual(function(*dual)[0]).tangent, expected)
    with torch.set_grad_enabled(grad):
        close(torch.func.jvp(function, tuple(tensors), tuple(tangents))[1][0], expected)


@operators
def test_forward_mode_of_the_reference_is_the_derivative(name):
    function, tensors = made(name)
    tensors = [t.double() for t in tensors]
    tangents = [torch.ones_like(t) for t in tensors]
    step = 1e-6
    ahead, behind = (
        function(*(t + sign * step * d for t, d in zip(tensors, tangents, strict=True)), backend="reference")[0]
        for sign in (1, -1)
    )
    found = torch.func.jvp(lambda *t: function(*t, backend="reference")[0], tuple(tensors), tuple(tangents))[1]
    torch.testing.assert_close(found, (ahead - behind) / (2 * step), rtol=1e-7, atol=1e-8)


@operators
@pytest.mark.parametrize("grad", [False, True])
def test_vmap(name, grad):
    function, tensors = made(name, (3,))
    with torch.set_grad_enabled(grad):
        close(torch.vmap(function)(*tensors)[0], torch.stack([function(*row)[0] for row in zip(*tensors, strict=True)]))
        first, rest = tensors[0], [t[0] for t in tensors[1:]]
        found = torch.vmap(lambda x: function(x, *rest)[0], 0, 1)(first)
        close(found, torch.stack([function(row, *rest)[0] for row in first], 1))


@operators
def test_functional_gradients_and_those_of_vmap(name):
    function, tensors = made(name, (3,))
    places = tuple(range(len(tensors)))
    each, correct = (torch.func.grad(loss(function, backend), places) for backend in ("auto", "reference"))
    close(each(*(t[0] for t in tensors)), correct(*(t[0] for t in tensors)))
    expected = [torch.stack(g) for g in zip(*(correct(*row) for row in zip(*tensors, strict=True)), strict=True)]
    close(list(torch.vmap(each)(*tensors)), expected)
    tensors = [t.requires_grad_() for t in tensors]
    together = torch.vmap(loss(function, "auto"))(*tensors).sum()
    close(list(torch.autograd.grad(together, tensors)), expected)


@operators
def test_gradients_of_gradients(name):
    function, tensors = made(name)
    tensors = [t.requires_grad_() for t in tensors]

    def thrice(backend):
        value, found = loss(function, backend)(*tensors), []
        for _ in range(3):
            gradients = torch.autograd.grad(value, tensors, create_graph=True, materialize_grads=True)
            found += gradients
            value = sum(g.square().sum() for g in gradients)
        return found

    for found, expected in zip(thrice("auto"), thrice("reference"), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * max(1, float(expected.detach().abs().max())))


@pytest.mark.parametrize("name", [name for name in ROWS if name != "linear"])
def test_the_gradient_of_one_output_alone_has_a_gradient(name):
    function, tensors = made(name)
    tensors = [t.requires_grad_() for t in tensors]

    def twice(backend):
        value = function(*tensors, backend=backend)[1].square().sum()
        gradient = torch.autograd.grad(value, tensors[0], create_graph=True)[0]
        return torch.autograd.grad(gradient.square().sum(), tensors, materialize_grads=True)

    close(twice("auto"), twice("reference"))


@operators
def test_rows_of_a_jacobian_at_once(name):
    function, tensors = made(name)
    x, *rest = tensors
    expected = torch.autograd.functional.jacobian(lambda x: function(x, *rest)[0], x)
    close(torch.func.jacrev(lambda x: function(x, *rest)[0])(x), expected)
    close(torch.func.jacfwd(lambda x: function(x, *rest)[0])(x), expected)


def test_second_derivatives():
    function, tensors = made("selective_scan")
    tensors = [t.double() for t in tensors]

    def reference(*tensors):
        return loss(function, "reference")(*tensors)

    assert torch.autograd.gradcheck(reference, [t.requires_grad_() for t in tensors], check_forward_ad=True)
    function, tensors = made("causal_conv1d")
    x, *rest = (t.double() for t in tensors)
    assert torch.autograd.gradgradcheck(lambda x: function(x, *rest, backend="reference"), x.requires_grad_())


@pytest.mark.parametrize("name", [name for name in ROWS if name != "linear"])
def test_a_backend_without_the_derivative_says_so(name):
    function, tensors = made(name)
    tensors = tuple(tensors)
    with pytest.raises(UserError, match="no forward-mode derivatives"):
        torch.func.jvp(lambda *t: function(*t, backend="cpu"), tensors, tensors)
    with pytest.raises(UserError, match="no forward-mode derivatives"):
        torch.func.grad(loss(function, "cpu"))(*tensors)
    with forward_ad.dual_level():
        function(*tensors, backend="cpu")  # none of them has a tangent


def test_forward_mode_over_a_backward():
    function, tensors = made("selective_scan")
    x = tensors[0].requires_grad_()
    y = function(x, *tensors[1:])[0]
    correct = torch.autograd.grad(y, x, torch.ones_like(y), retain_graph=True)[0]
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(torch.zeros_like(y), torch.ones_like(y))
        found = torch.autograd.grad(y, x, dual, create_graph=True)[0]
        close(forward_ad.unpack_dual(found).tangent, correct)


@pytest.mark.filterwarnings("ignore")
def test_a_call_traced_without_gradients_still_has_them():
    assert not wants_gradient([torch.ones(1)])
    for call in (s6, ssd):
        tensors = [t.requires_grad_() for t in made("selective_scan" if call is s6 else "state_space_duality")[1]]
        with torch.no_grad():
            traced = torch.jit.trace(call, tuple(tensors), check_trace=False)
        found, expected = (torch.autograd.grad(f(*tensors)[0].sum(), tensors) for f in (traced, call))
        close(found, expected)


def test_opcheck_of_the_backwards():
    tests = ("test_schema", "test_faketensor")
    x, weight, bias = torch.rand(2, 1, 5, 6), torch.rand(1, 6, 4), torch.rand(1, 6)
    arguments = (torch.rand(2, 1, 5, 6), None, x, weight, bias, "silu", None, None, None, "cpu")
    torch.library.opcheck(convolution._backward, arguments, test_utils=tests)
