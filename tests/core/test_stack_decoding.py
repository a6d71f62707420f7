"""One token through a whole stack in one call, against layer after layer, and when that way is not taken."""

from __future__ import annotations

import pytest
import torch
from operators import relative_error
from torch import nn

from polymamba.core.mixers import Mamba
from polymamba.core.mixers.mamba2 import Mamba2
from polymamba.core.stack import ResidualBlock, decode, make_norm, run_stack

MIXERS = {
    "plain": lambda: Mamba(24),
    "learned norms, biases": lambda: Mamba(24, norms="learned", bias=True, conv_bias=False, d_state=5),
    "weightless, no gate": lambda: Mamba(24, norms="weightless", gate=False, expand=1.5, d_conv=2),
    "mamba2": lambda: Mamba2(24, d_state=5, headdim=8, ngroups=2, bias=True),
    "mamba2, bare": lambda: Mamba2(24, d_state=16, headdim=6, rmsnorm=False, D_has_hdim=True, conv_bias=False),
}


@pytest.fixture(autouse=True)
def _no_gradient():
    with torch.no_grad():
        yield


def stack(mixer, layers=3, **options):
    torch.manual_seed(0)
    return nn.ModuleList(ResidualBlock(mixer(), make_norm("rms", 24), **options) for _ in range(layers))


def by_layer(layers, hidden, states):
    residual, after = None, []
    for layer, state in zip(layers, states, strict=True):
        hidden, residual, state = layer(hidden, residual, None, state)
        after.append(state)
    return hidden, residual, after


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 1e-2)])
def test_equals_layer_after_layer(mixer, dtype, tolerance):
    layers, tokens = stack(MIXERS[mixer]).to(dtype), torch.randn(2, 6, 24).to(dtype)
    states = run_stack(layers, tokens[:, :4]).states
    expected_states = states
    for t in (4, 5):
        token = tokens[:, t : t + 1]
        before = [tuple(part.clone() for part in state) for state in states]
        found = run_stack(layers, token, states=states)
        assert decode(layers, token, states) is not None
        for state, kept in zip(states, before, strict=True):
            assert all(torch.equal(one, other) for one, other in zip(state, kept, strict=True))
        hidden, residual, expected_states = by_layer(layers, token, expected_states)
        assert (found.hidden.dtype, found.residual.dtype) == (hidden.dtype, residual.dtype)
        assert relative_error(found.hidden, hidden) < tolerance
        assert relative_error(found.residual, residual) < tolerance
        for now, expected in zip(found.states, expected_states, strict=True):
            assert type(now) is type(expected)
            assert all(relative_error(a, b) < tolerance for a, b in zip(now, expected, strict=True))
        states = found.states


@pytest.mark.parametrize("mixer", MIXERS)
def test_the_first_token_needs_no_state(mixer):
    layers, token = stack(MIXERS[mixer]), torch.randn(1, 1, 24)
    found, (hidden, residual, _) = run_stack(layers, token), by_layer(layers, token, [None] * 3)
    assert relative_error(found.hidden, hidden) < 2e-6
    assert relative_error(found.residual, residual) < 2e-6


class Doubled(Mamba):
    def forward(self, *arguments, **named):
        y, state = super().forward(*arguments, **named)
        return 2 * y, state


def test_what_does_more_than_add_norm_mix_goes_layer_by_layer():
    token, mixer = torch.randn(1, 1, 24), MIXERS["plain"]
    assert decode(stack(mixer), token, None) is not None
    others = {
        "another class": stack(lambda: Doubled(24)), "one of another class": stack(mixer),
        "an MLP": stack(mixer, mlp=nn.Linear(24, 24), norm2=make_norm("rms", 24)), "another norm": stack(mixer),
        "a hook": stack(mixer), "a hook inside": stack(mixer), "another projection": stack(mixer),
        "two paths": stack(lambda: Mamba(24, scan="bidirectional")), "drop path": stack(mixer, drop_path=nn.Dropout(0.5)),
        "none": nn.ModuleList(), "two kinds": stack(mixer), "Mamba-2 with an MLP": stack(MIXERS["mamba2"]),
    }  # fmt: skip
    others["one of another class"][1].mixer = Doubled(24)
    others["two kinds"][0].mixer = MIXERS["mamba2"]()
    others["Mamba-2 with an MLP"][0].mixer = Mamba2(24, headdim=8, d_ssm=24)
    others["another norm"][2].norm = nn.LayerNorm(24)
    others["a hook"][0].register_forward_hook(lambda module, given, found: None)
    others["a hook inside"][0].mixer.out_proj.register_forward_pre_hook(lambda module, given: None)
    others["another projection"][1].mixer.in_proj = nn.Sequential(nn.Linear(24, 96))
    for name, layers in others.items():
        if name != "two paths":
            layers.eval()
        assert decode(layers, token, None) is None, name
    with torch.enable_grad():
        assert decode(stack(mixer), token, None) is None
    assert decode(stack(mixer), token.expand(-1, 2, -1), None) is None


def test_a_subclass_is_heard_at_one_token():
    layers, token = stack(lambda: Doubled(24), 1), torch.randn(1, 1, 24)
    plain = stack(MIXERS["plain"], 1)
    assert relative_error(run_stack(layers, token).hidden, 2 * run_stack(plain, token).hidden) < 1e-6
