"""mamba_ssm's functions of Mamba-2's scan against loops in float64: groups, gates, norms, states and their gradients, packing."""

from __future__ import annotations

import math

import published_mixers as loops
import pytest
import torch
from torch.nn import functional as F

from polymamba.compat.duality import mamba_chunk_scan_combined, mamba_split_conv1d_scan_combined
from polymamba.compat.modules import Mamba2
from polymamba.core.errors import UserError

HEADS, WIDTH, GROUPS, STATES = 4, 6, 2, 5


def given(length: int = 30, batch: int = 2, dtype=torch.float32) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=g).to(dtype).requires_grad_()

    return {
        "x": draw(batch, length, HEADS, WIDTH), "dt": draw(batch, length, HEADS),
        "A": (-torch.linspace(0.5, 4, HEADS)).to(dtype).requires_grad_(), "B": draw(batch, length, GROUPS, STATES),
        "C": draw(batch, length, GROUPS, STATES), "D": draw(HEADS, WIDTH), "z": draw(batch, length, HEADS, WIDTH),
        "dt_bias": draw(HEADS), "initial_states": draw(batch, HEADS, WIDTH, STATES),
    }  # fmt: skip


def loop(x, dt, A, B, C, D, z=None, dt_bias=None, initial_states=None, limit=(0.0, math.inf), softplus=True):
    dt = dt if dt_bias is None else dt + dt_bias
    dt = (F.softplus(dt) if softplus else dt).clamp(*limit)
    B, C = (t.repeat_interleave(HEADS // GROUPS, 2) for t in (B, C))
    h = x.new_zeros(len(x), HEADS, WIDTH, STATES) if initial_states is None else initial_states
    rows = []
    for t in range(x.shape[1]):
        h = (dt[:, t] * A).exp()[..., None, None] * h + (dt[:, t, :, None] * x[:, t])[..., None] * B[:, t, :, None]
        rows.append((h * C[:, t, :, None]).sum(-1) + D.view(HEADS, -1) * x[:, t])
    y = torch.stack(rows, 1)
    return (y if z is None else y * F.silu(z)), h


def error(found, expected) -> float:
    found, expected = found.detach().double(), expected.detach()
    return float((found - expected).norm() / (expected.norm() + 1e-12))


@pytest.mark.parametrize("chunk_size", [1, 8, 256])
@pytest.mark.parametrize("limit", [(0.0, math.inf), (0.1, 0.9)])
def test_states_in_states_out_and_all_gradients(chunk_size, limit):
    values, doubles = given(), given(dtype=torch.float64)
    y, h = mamba_chunk_scan_combined(
        **values, chunk_size=chunk_size, dt_softplus=True, dt_limit=limit, return_final_states=True
    )
    expected, last = loop(**doubles, limit=limit)
    assert error(y, expected) < 1e-5
    assert error(h, last) < 1e-5
    found = torch.autograd.grad(y.sum() + h.square().sum(), list(values.values()))
    wanted = torch.autograd.grad(expected.sum() + last.square().sum(), list(doubles.values()))
    errors = {name: error(a, b) for name, a, b in zip(values, found, wanted, strict=True)}
    assert max(errors.values()) < 2e-5, errors


def test_steps_given_as_they_are_and_one_skip_a_head():
    values = {name: t for name, t in given().items() if name not in ("z", "dt_bias", "initial_states")}
    values |= {"dt": values["dt"].abs(), "D": values["D"][:, 0]}
    doubles = {name: t.detach().double() for name, t in values.items()}
    assert error(mamba_chunk_scan_combined(**values, chunk_size=16), loop(**doubles, softplus=False)[0]) < 1e-5


def test_packed_sequences_and_their_states():
    values = {name: t.detach() for name, t in given(batch=1).items() if name != "initial_states"}
    per_head = ("A", "D", "dt_bias")
    parts = [
        {name: t if name in per_head else t[:, part] for name, t in values.items()}
        for part in (slice(0, 7), slice(7, 8), slice(8, 30))
    ]
    apart = [mamba_chunk_scan_combined(**part, dt_softplus=True, return_final_states=True) for part in parts]
    cu = torch.tensor([0, 7, 8, 30])
    y, states = mamba_chunk_scan_combined(**values, dt_softplus=True, cu_seqlens=cu, return_varlen_states=True)
    torch.testing.assert_close(y, torch.cat([part[0] for part in apart], 1))
    torch.testing.assert_close(states, torch.cat([part[1] for part in apart]))
    number = torch.repeat_interleave(torch.arange(3), cu.diff())[None]
    packed, final = mamba_chunk_scan_combined(**values, dt_softplus=True, seq_idx=number, return_final_states=True)
    torch.testing.assert_close(packed, y, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(final, states[-1:], rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match="batch 1"):
        mamba_chunk_scan_combined(**given(), cu_seqlens=cu, return_varlen_states=True)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"ngroups": 2, "norm_before_gate": True, "bias": True},
        {"d_ssm": 16, "D_has_hdim": True, "ngroups": 2},
        {"rmsnorm": False, "d_ssm": 24, "conv_bias": False, "dt_limit": (0.05, 0.5)},
    ],
)
@pytest.mark.parametrize("begin", [False, True])
def test_from_the_projection_to_the_output(options, begin):
    options = {"d_state": 8, "headdim": 8, "expand": 2} | options
    torch.manual_seed(0)
    layer, x = Mamba2(16, **options), torch.randn(2, 20, 16)
    weights = {name: p.detach().double() for name, p in layer.named_parameters()}
    states = torch.randn(2, layer.nheads, 8, 8) if begin else None
    hdim = options.get("D_has_hdim", False)
    y, h = mamba_split_conv1d_scan_combined(
        layer.in_proj(x), layer.conv1d.weight.squeeze(1), layer.conv1d.bias, layer.dt_bias, -layer.A_log.exp(),
        layer.D.view(-1, 8) if hdim else layer.D, 16, states, None, options.get("dt_limit", (0.0, math.inf)), True, "swish",
        None if layer.norm is None else layer.norm.weight, 1e-5, layer.out_proj.weight, layer.out_proj.bias,
        None if hdim else 8, layer.ngroups, options.get("norm_before_gate", False),
    )  # fmt: skip
    expected, (_, last) = loops.mamba2(weights, x.double(), None if states is None else states.double(), **options)
    assert error(y, expected) < 1e-5
    assert error(h, last) < 1e-5
