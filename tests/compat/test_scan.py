"""mamba_ssm's scan functions against the plain recurrence: outputs, states and every gradient."""

from __future__ import annotations

import plain_recurrences as plain
import pytest
import torch
from operators import relative_error
from torch.nn import functional as F

from polymamba.compat.scan import bimamba_inner_fn, mamba_inner_fn, selective_scan_fn, selective_scan_ref

BATCH, CHANNELS, LENGTH, STATES, RANK, OUT = 2, 6, 19, 5, 3, 4


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)), dtype=torch.float64)


def arguments(form: str, left_out=()) -> dict:
    shape = {"constant": (CHANNELS, STATES), "variable": (BATCH, STATES, LENGTH), "groups": (BATCH, 2, STATES, LENGTH)}
    rows = (BATCH, CHANNELS, LENGTH)
    given = {
        "u": normal(*rows), "delta": normal(*rows, seed=1), "A": -normal(CHANNELS, STATES).exp(),
        "B": normal(*shape[form], seed=2), "C": normal(*shape[form], seed=3), "D": normal(CHANNELS),
        "z": normal(*rows, seed=4), "delta_bias": normal(CHANNELS, seed=5),
    }  # fmt: skip
    return {name: t.requires_grad_() for name, t in given.items() if name not in left_out}


def assert_same(found: list, expected: list, tensors_found: dict, tensors_expected: dict, limit: float) -> None:
    """Outputs, and the gradients of a fixed random combination of them."""
    assert [t.shape for t in found] == [t.shape for t in expected]
    results = []
    for outputs, tensors in ((found, tensors_found), (expected, tensors_expected)):
        loss = sum((t.double() * normal(*t.shape, seed=9)).sum() for t in outputs)
        results.append([*outputs, *torch.autograd.grad(loss, list(tensors.values()), allow_unused=True)])
    for name, a, b in zip([*range(len(found)), *tensors_found], *results, strict=True):
        assert a is not None, f"no gradient for {name}"
        assert relative_error(a, b) < limit, name


@pytest.mark.parametrize("form", ["constant", "variable", "groups"])
@pytest.mark.parametrize("left_out", [(), ("D",), ("z",), ("delta_bias",), ("D", "z", "delta_bias")], ids=str)
@pytest.mark.parametrize("function", [selective_scan_fn, selective_scan_ref])
def test_scan(form, left_out, function):
    exact = arguments(form, left_out)
    single = {name: t.detach().float().requires_grad_() for name, t in exact.items()}
    expected = plain.scan(**exact, delta_softplus=True)
    found = function(**single, delta_softplus=True, return_last_state=True)
    assert_same(list(found), list(expected), single, exact, 2e-5)


@pytest.mark.parametrize("form", ["constant", "variable"])
def test_complex_decay(form):
    given = {name: t.detach() for name, t in arguments(form).items() if name in ("u", "delta", "D")}
    A = torch.complex(-normal(CHANNELS, STATES).exp(), normal(CHANNELS, STATES, seed=6))
    shape = (CHANNELS, STATES) if form == "constant" else (BATCH, STATES, LENGTH)
    exact = [torch.complex(normal(*shape, seed=s), normal(*shape, seed=s + 1)) for s in (1, 3)]
    passed = exact if form == "constant" else [torch.view_as_real(t).flatten(-2) for t in exact]
    expected, _ = plain.scan(given["u"], F.softplus(given["delta"]), A, *exact, given["D"])
    found = selective_scan_fn(given["u"], given["delta"], A, *passed, given["D"], delta_softplus=True)
    assert relative_error(found, expected) < 1e-10


def inner_arguments(norms: bool, bias: bool, given_B: bool) -> dict:
    given = {
        "xz": normal(BATCH, 2 * CHANNELS, LENGTH), "conv1d_weight": normal(CHANNELS, 1, 4), "conv1d_bias": normal(CHANNELS),
        "x_proj_weight": normal(RANK + (1 if given_B else 2) * STATES, CHANNELS), "delta_proj_weight": normal(CHANNELS, RANK),
        "out_proj_weight": normal(OUT, CHANNELS), "out_proj_bias": normal(OUT) if bias else None,
        "A": -normal(CHANNELS, STATES).exp(), "B": normal(BATCH, STATES, LENGTH) if given_B else None,
        "D": normal(CHANNELS, seed=1), "delta_bias": normal(CHANNELS, seed=2),
        "C_proj_bias": normal(STATES, seed=3) if bias else None,
    }  # fmt: skip
    if norms:
        given |= {"b_rms_weight": normal(STATES, seed=4), "c_rms_weight": normal(STATES, seed=5)}
        given |= {"dt_rms_weight": normal(RANK, seed=6)}
    return {name: t.requires_grad_() for name, t in given.items() if t is not None}


def plain_inner(**given) -> torch.Tensor:
    x, z = given["xz"].chunk(2, 1)
    x = plain.convolution(x, given["conv1d_weight"][:, 0], given["conv1d_bias"])
    projected = torch.einsum("bcl,oc->blo", x, given["x_proj_weight"])
    step, rest = projected[..., :RANK], projected[..., RANK:]
    B, C = (None, rest) if "B" in given else rest.split(STATES, -1)
    C = C + given["C_proj_bias"] if "C_proj_bias" in given else C
    if "b_rms_weight" in given:
        B = F.rms_norm(B, (STATES,), given["b_rms_weight"], 1e-6)
        C = F.rms_norm(C, (STATES,), given["c_rms_weight"], 1e-6)
        step = F.rms_norm(step, (RANK,), given["dt_rms_weight"], 1e-6)
    B = given["B"] if B is None else B.transpose(1, 2)
    delta = torch.einsum("blr,cr->bcl", step, given["delta_proj_weight"])
    y, _ = plain.scan(x, delta, given["A"], B, C.transpose(1, 2), given["D"], z, given["delta_bias"], True)
    return F.linear(y.transpose(1, 2), given["out_proj_weight"], given.get("out_proj_bias"))


@pytest.mark.parametrize(
    ("norms", "bias", "given_B"), [(False, False, False), (True, True, False), (False, True, True)]
)
def test_inner_function(norms, bias, given_B):
    exact = inner_arguments(norms, bias, given_B)
    single = {name: t.detach().float().requires_grad_() for name, t in exact.items()}
    found = mamba_inner_fn(**({"out_proj_bias": None} | single))
    assert_same([found], [plain_inner(**exact)], single, exact, 2e-5)


def test_bidirectional_inner_function_is_one_scan_each_way():
    given = {name: t.detach() for name, t in inner_arguments(False, True, False).items()}
    del given["C_proj_bias"]
    A_b = -normal(CHANNELS, STATES, seed=7).exp()
    found = bimamba_inner_fn(**given, A_b=A_b)
    x, z = given["xz"].chunk(2, 1)
    x = plain.convolution(x, given["conv1d_weight"][:, 0], given["conv1d_bias"])
    step, B, C = torch.einsum("bcl,oc->bol", x, given["x_proj_weight"]).split([RANK, STATES, STATES], 1)
    delta = torch.einsum("brl,cr->bcl", step, given["delta_proj_weight"])
    back = [t.flip(-1) for t in (x, delta, B, C, z)]
    y, _ = plain.scan(*back[:2], A_b, *back[2:4], given["D"], back[4], given["delta_bias"], True)
    forwards = plain_inner(**{name: t for name, t in given.items() if name != "out_proj_bias"})
    backwards = F.linear(y.flip(-1).transpose(1, 2), given["out_proj_weight"], given["out_proj_bias"])
    assert relative_error(found, forwards + backwards) < 1e-10
