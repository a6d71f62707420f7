"""Mamba-1's functions over the ranges of upstream's tests: dtypes, constant and variable B and C, groups, complex numbers, all
optional arguments, gradients; and the small functions that published code imports beside them."""

from __future__ import annotations

import copy
import itertools
import math
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from polymamba.compat import blocks, convolution, language_model, modules, norms, parallel, scan, token_choice
from polymamba.compat.scan import mamba_inner_fn, mamba_inner_ref, selective_scan_fn, selective_scan_ref
from polymamba.core.errors import UserError

# rtol and atol of results; gradients: twice to tenfold, as upstream.
TOLERANCES = {torch.float32: (6e-4, 2e-3), torch.float16: (3e-3, 5e-3), torch.bfloat16: (3e-2, 5e-2)}


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


def scan_arguments(length, itype, wtype, variable_b, variable_c, groups, present):
    g = draws(length)
    parts = 2 if wtype.is_complex else 1

    def matrix(variable):
        shape = (4, 8) if not variable else (2, 8, length * parts) if groups == 1 else (2, groups, 8, length * parts)
        return torch.randn(*shape, generator=g, dtype=itype if variable else wtype)

    values = {
        "u": torch.randn(2, 4, length, generator=g).to(itype), "delta": (0.5 * torch.rand(2, 4, length, generator=g)).to(itype),
        "A": -0.5 * torch.rand(4, 8, generator=g, dtype=wtype), "B": matrix(variable_b), "C": matrix(variable_c),
        "D": torch.randn(4, generator=g) if present else None,
        "z": torch.randn(2, 4, length, generator=g).to(itype) if present else None,
        "delta_bias": 0.5 * torch.rand(4, generator=g) if present else None,
    }  # fmt: skip
    return {name: None if t is None else t.requires_grad_() for name, t in values.items()}


PAIRS = list(itertools.product((False, True), repeat=2))
VARIABLE = [(False, False, 1), (False, True, 1), (True, False, 1), (True, True, 1), (True, True, 2)]
CASES = [
    (VARIABLE[i % 5], itype, wtype, length, bool((i // 2) % 2))
    for i, (itype, wtype, length) in enumerate(
        itertools.product(TOLERANCES, (torch.float32, torch.complex64), (1, 8, 37, 64, 129))
    )
] + [(kind, torch.float32, torch.float32, 37, present) for kind in VARIABLE for present in (False, True)]


@pytest.mark.parametrize(("kind", "itype", "wtype", "length", "present"), CASES)
def test_scan_is_its_reference(kind, itype, wtype, length, present):
    rtol, atol = TOLERANCES[itype]
    found = []
    for function in (selective_scan_fn, selective_scan_ref):
        values = scan_arguments(length, itype, wtype, *kind, present)
        out, state = function(**values, delta_softplus=present, return_last_state=True)
        assert selective_scan_fn(**values, delta_softplus=present).is_contiguous()
        out.backward(torch.randn(out.shape, generator=draws()).to(itype))
        found.append((out, state, values))
    (out, state, ours), (expected, last, theirs) = found
    torch.testing.assert_close(out, expected, rtol=rtol, atol=atol)
    torch.testing.assert_close(state, last, rtol=rtol, atol=atol)
    assert out.dtype == itype
    for name, t in ours.items():
        if t is not None:
            torch.testing.assert_close(t.grad, theirs[name].grad, rtol=5 * rtol, atol=10 * atol, msg=name)


def inner_arguments(variable_b, variable_c, itype, wtype, length=33, channels=24, states=4, rank=5):
    """Scaled so that the numbers stay near 1."""
    g = draws(length)
    parts = 2 if wtype.is_complex else 1

    def draw(*shape, dtype=itype):
        scale = shape[-1] ** -0.5 if len(shape) == 2 else 1
        return (torch.randn(*shape, generator=g, dtype=torch.promote_types(dtype, torch.float32)) * scale).to(dtype)

    values = [
        torch.randn(2, 2 * channels, length, generator=g).to(itype), draw(channels, 1, 3), draw(channels),
        draw(rank + (variable_b + variable_c) * states * parts, channels), draw(channels, rank), draw(7, channels), draw(7),
        -0.5 * torch.rand(channels, states, generator=g, dtype=wtype), None if variable_b else draw(channels, states, dtype=wtype),
        None if variable_c else draw(channels, states, dtype=wtype), draw(channels, dtype=torch.float32),
        draw(channels, dtype=torch.float32),
    ]  # fmt: skip
    return [None if t is None else t.requires_grad_() for t in values]


@pytest.mark.parametrize(("variable_b", "variable_c"), PAIRS)
@pytest.mark.parametrize(
    ("itype", "wtype"),
    [(torch.float32, torch.float32), (torch.float32, torch.complex64), (torch.bfloat16, torch.float32)],
)
def test_inner_function_is_its_reference(variable_b, variable_c, itype, wtype):
    tolerance = 1e-4 if itype == torch.float32 else 3e-2
    ours, theirs = (inner_arguments(variable_b, variable_c, itype, wtype) for _ in range(2))
    found, expected = mamba_inner_fn(*ours), mamba_inner_ref(*theirs)
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    gradient = torch.randn(found.shape, generator=draws()).to(itype)
    found.backward(gradient)
    expected.backward(gradient)
    for a, b in zip(ours, theirs, strict=True):
        if a is not None:
            assert (a.grad - b.grad).norm() <= tolerance * b.grad.norm() + tolerance


@pytest.mark.parametrize(("variable_b", "variable_c"), PAIRS)
def test_inner_function_from_the_definition(variable_b, variable_c):
    xz, conv, conv_bias, project, widen, out, out_bias, A, B, C, D, bias = inner_arguments(
        variable_b, variable_c, torch.float32, torch.float32
    )
    x, z = xz.double().chunk(2, 1)
    x = F.silu(F.conv1d(x, conv.double(), conv_bias.double(), padding=2, groups=24)[..., :33])
    projected = torch.einsum("rd,bdl->brl", project.double(), x)
    step = F.softplus(torch.einsum("dr,brl->bdl", widen.double(), projected[:, :5]) + bias.double()[:, None])
    b = projected[:, 5:9, None].transpose(1, 2) if variable_b else B.double()[None, :, :, None]
    c = projected[:, -4:, None].transpose(1, 2) if variable_c else C.double()[None, :, :, None]
    b, c = (t.expand(2, 24, 4, 33) for t in (b, c))
    h, rows = 0, []
    for t in range(33):
        h = (step[..., t, None] * A.double()).exp() * h + (step * x)[..., t, None] * b[..., t]
        rows.append((h * c[..., t]).sum(-1))
    y = (torch.stack(rows, -1) + D.double()[:, None] * x) * F.silu(z)
    found = mamba_inner_fn(xz, conv, conv_bias, project, widen, out, out_bias, A, B, C, D, bias)
    torch.testing.assert_close(
        found.double(), F.linear(y.transpose(1, 2), out.double(), out_bias.double()), rtol=1e-4, atol=1e-4
    )


def test_classes_are_called_as_upstreams():
    values = scan_arguments(9, torch.float32, torch.float32, True, True, 1, True).values()
    torch.testing.assert_close(scan.SelectiveScanFn.apply(*values, True), selective_scan_fn(*values, True))
    given = inner_arguments(True, True, torch.float32, torch.float32)
    torch.testing.assert_close(scan.MambaInnerFn.apply(*given), mamba_inner_fn(*given))
    xy = torch.randn(3, 8, generator=draws())
    torch.testing.assert_close(blocks.SwiGLU.apply(xy), F.silu(xy[:, :4]) * xy[:, 4:])
    kept = torch.empty(3, 4)
    assert blocks.swiglu(xy, kept) is kept


@pytest.mark.parametrize("states", [False, True])
def test_operators_of_the_convolution(states):
    g = draws()
    x, weight, bias, dout = (torch.randn(*shape, generator=g) for shape in ((2, 5, 9), (5, 4), (5,), (2, 5, 9)))
    before, dlast = (torch.randn(2, 5, 3, generator=g) if states else None for _ in range(2))
    kept = torch.empty(2, 5, 3)
    out = convolution.causal_conv1d_fwd_function(x, weight, bias, None, before, kept, True)
    given = [t.clone().requires_grad_() for t in (x, weight, bias, before) if t is not None]
    expected, last = convolution.causal_conv1d_ref(
        *given[:3], given[3] if states else None, return_final_states=True, activation="silu"
    )
    torch.testing.assert_close((out, kept), (expected, last))
    ((expected * dout).sum() + ((last * dlast).sum() if states else 0)).backward()
    dx = torch.empty_like(x)
    found = convolution.causal_conv1d_bwd_function(x, weight, bias, dout, None, before, dlast, dx, states, True)
    assert found[0] is dx
    for ours, theirs in zip(found, given, strict=False):
        torch.testing.assert_close(ours, theirs.grad)
    assert (found[3] is None) != states
    state, same = torch.zeros(2, 5, 3), torch.zeros(2, 5, 3)
    one = convolution.causal_conv1d_update_function(x, state, weight, bias, True, None, None)
    torch.testing.assert_close(one, convolution.causal_conv1d_update_ref(x, same, weight, bias, "silu"))
    torch.testing.assert_close(state, same)


def test_choice_of_tokens():
    scores = torch.tensor([[3.0, 1.0, 2.0, -1.0]]).expand(2000, -1)
    torch.manual_seed(0)
    assert token_choice.sample(scores).unique().tolist() == [0]
    assert token_choice.sample(scores, top_k=2).unique().tolist() == [0, 2]
    assert token_choice.sample(scores, top_k=0, top_p=0.7).unique().tolist() == [0, 2]
    assert token_choice.sample(scores, top_k=0, min_p=0.3).unique().tolist() == [0, 2]
    shares = token_choice.sample(scores, top_k=0, temperature=2.0).bincount(minlength=4) / 2000
    torch.testing.assert_close(shares, (scores[0] / 2).softmax(-1), rtol=0, atol=0.04)
    penalised = token_choice.modify_logit_for_repetition_penalty(scores[:1].clone(), torch.tensor([[0, 3]]), 2.0)
    torch.testing.assert_close(penalised, torch.tensor([[1.5, 1.0, 2.0, -2.0]]))
    filtered = scores[:1].clone()
    token_choice.modify_logits_for_top_k_filtering(filtered, 3)
    assert filtered.isinf().tolist() == [[False, False, False, True]]


def test_beginning_of_weights():
    mixer, linear, embedding = modules.Mamba(32), nn.Linear(4, 4), nn.Embedding(500, 64)
    bias = mixer.dt_proj.bias.clone()
    for module in (*mixer.modules(), linear, embedding):
        blocks.init_weights(module, n_layer=16, n_residuals_per_layer=4)
    assert torch.equal(mixer.dt_proj.bias, bias)
    assert not linear.bias.any()
    assert abs(float(embedding.weight.detach().std()) - 0.02) < 1e-3
    assert float(mixer.out_proj.weight.detach().abs().max()) <= 1 / math.sqrt(64) / 8


MADE = {
    "Mamba": lambda: modules.Mamba(16, layer_idx=0), "Mamba2": lambda: modules.Mamba2(16, d_state=8, headdim=8, layer_idx=0),
    "Mamba3": lambda: modules.Mamba3(16, d_state=8, headdim=8, layer_idx=0),
    "Mamba2Simple": lambda: modules.Mamba2Simple(16, d_state=8, headdim=8, learnable_init_states=True),
    "MHA": lambda: blocks.MHA(16, 2, layer_idx=0, rotary_emb_dim=8), "GatedMLP": lambda: blocks.GatedMLP(16),
    "Block": lambda: blocks.create_block(16, rms_norm=True), "RMSNorm": lambda: norms.RMSNorm(16),
}  # fmt: skip


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize(
    "way", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))], ids=["deepcopy", "pickle"]
)
def test_modules_are_copied_and_pickled(name, way):
    module, x = MADE[name](), torch.randn(2, 7, 16, generator=draws())
    expected = module(x)
    torch.testing.assert_close(way(module)(x), expected, rtol=0, atol=0)


def test_language_models_are_copied_and_pickled():
    model = language_model.MambaLMHeadModel(language_model.MambaConfig(d_model=16, n_layer=1, vocab_size=20))
    tokens = torch.arange(5)[None]
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(other(tokens).logits, model(tokens).logits, rtol=0, atol=0)
        assert other.lm_head.weight is other.backbone.embedding.weight


def test_what_cannot_be_says_so():
    values = scan_arguments(9, torch.float32, torch.float32, True, True, 1, False)
    with pytest.raises(UserError, match="B has the wrong shape"):
        selective_scan_fn(**values | {"B": torch.randn(2, 8, 5)})
    with pytest.raises(UserError):
        selective_scan_fn(**values | {"B": torch.randn(2, 3, 8, 9), "C": torch.randn(2, 3, 8, 9)})
    with pytest.raises(UserError, match="process_group"):
        modules.Mamba2(16, headdim=8, process_group=object())
    with pytest.raises(UserError, match="tensor parallel"):
        parallel.ColumnParallelLinear(4, 4)


def test_functions_of_mixed_precision():
    class Twice(torch.autograd.Function):
        @staticmethod
        @parallel.custom_fwd
        def forward(ctx, x):
            return 2 * x

        @staticmethod
        @parallel.custom_bwd
        def backward(ctx, gradient):
            return 2 * gradient

    x = torch.ones(3, requires_grad=True)
    Twice.apply(x).sum().backward()
    assert x.grad.tolist() == [2, 2, 2]
