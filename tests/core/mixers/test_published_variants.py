"""What the core's mixers offer beyond mamba_ssm's modules, against loops over named weights: norms and their eps, states."""

from __future__ import annotations

import published_mixers as loops
import pytest
import torch

from polymamba.core.mixers import get

WIDTH, HEADS = 32, {"d_state": 8, "headdim": 8}


def made(name: str, **options):
    torch.manual_seed(0)
    layer = get(name)(WIDTH, **options)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return layer


def tokens(length: int = 30, seed: int = 1) -> torch.Tensor:
    return torch.randn(2, length, WIDTH, generator=torch.Generator().manual_seed(seed))


def doubled(layer) -> dict[str, torch.Tensor]:
    return {name: p.detach().double().requires_grad_() for name, p in layer.named_parameters()}


def error(found, expected) -> float:
    found, expected = found.detach().double(), expected.detach()
    return float((found - expected).norm() / (expected.norm() + 1e-12))


def same_gradients(y, expected, inputs, wanted_inputs) -> float:
    weight = tokens(y.shape[1], seed=2)
    got = torch.autograd.grad((y * weight).sum(), inputs)
    wanted = torch.autograd.grad((expected * weight).sum(), wanted_inputs)
    return max(error(a, b) for a, b in zip(got, wanted, strict=True))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mamba", {"norms": "weightless", "d_state": 8}),
        ("mamba", {"norms": "weightless", "norm_eps": 0.1, "dt_rank": 3, "bias": True}),
        ("mamba", {"norms": "learned", "norm_eps": 1e-6, "conv_bias": False, "d_conv": 3}),
        ("mamba", {"norms": "learned", "norm_eps": 0.3}),
        ("mamba2", HEADS | {"norm_eps": 0.2, "ngroups": 2}),
        ("mamba2", HEADS | {"norm_eps": 0.2, "norm_before_gate": True}),
    ],
)
def test_norms_and_their_eps(name, options):
    layer, weights, x = made(name, **options), None, tokens()
    weights = doubled(layer)
    y, state = layer(x)
    expected, (conv, ssm) = loops.MIXERS[name](weights, x.double(), **options)
    assert error(y, expected) < 1e-5
    assert error(state.conv, conv[..., 1:]) < 1e-5
    assert error(state.ssm, ssm) < 1e-5
    assert same_gradients(y, expected, list(layer.parameters()), list(weights.values())) < 2e-5


@pytest.mark.parametrize("options", [{}, {"ngroups": 4}, {"rmsnorm": False, "dt_limit": (0.02, 0.4)}])
def test_initial_states_and_their_gradients(options):
    """The states before the first token: into every output, the final states, and back."""
    options = HEADS | options
    layer = made("mamba2", **options)
    weights, x = doubled(layer), tokens()
    begin = torch.randn(2, layer.nheads, 8, 8, generator=torch.Generator().manual_seed(3)).requires_grad_()
    conv = torch.zeros(2, layer.d_xbc, 3)
    y, state = layer(x, state=type(layer(x)[1])(conv, begin))
    other = begin.detach().double().requires_grad_()
    expected, (_, ssm) = loops.mamba2(weights, x.double(), begin=other, **options)
    assert error(y, expected) < 1e-5
    assert error(state.ssm, ssm) < 1e-5
    found = torch.autograd.grad(y.sum() + state.ssm.square().sum(), [begin, *layer.parameters()])
    wanted = torch.autograd.grad(expected.sum() + ssm.square().sum(), [other, *weights.values()])
    assert max(error(a, b) for a, b in zip(found, wanted, strict=True)) < 2e-5


@pytest.mark.parametrize(
    "options", [{}, {"is_mimo": True, "mimo_rank": 3}, {"is_mimo": True, "is_outproj_norm": True, "rope_fraction": 1.0}]
)
def test_the_last_input_is_kept_as_it_came(options):
    """Mamba-3's state holds the input before it becomes several; padding behind it changes nothing."""
    options = HEADS | options
    layer, x = made("mamba3", **options), tokens(9)
    _, cache = loops.mamba3(doubled(layer), x.double(), **options)
    padded = torch.cat([x, 50 * tokens(3, seed=4)], 1)
    seq_idx = torch.tensor([0] * 9 + [-1] * 3).expand(2, -1)
    for state in (layer(x)[1], layer(padded, seq_idx=seq_idx)[1]):
        assert [t.shape for t in state] == [t.shape for t in cache]
        assert max(error(a, b) for a, b in zip(state[1:], cache[1:], strict=True)) < 1e-5
