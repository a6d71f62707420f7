import math

import pytest
import torch
from torch.nn import functional as F

from polymamba.core.errors import UserError
from polymamba.core.mixers import get
from polymamba.core.mixers.mamba3 import Mamba3, heavy_tail
from polymamba.core.ops.turned_keys import turn

DOUBLE = {"dtype": torch.float64}


@pytest.mark.parametrize(("name", "options"), [("core_mamba3_siso", {}), ("core_mamba3_mimo", {"is_mimo": True})])
def test_matches_the_original_mixer(golden, name, options):
    made = golden.fill(Mamba3(128, d_state=32, headdim=32, **options))
    result = golden.compare(name, made(golden.seeded(2, 100, 128))[0], made)
    assert max(result["errors"]) < 1e-5
    assert not (result["missing"])
    assert not (result["extra"])
    assert not (result["shapes"])
    assert result["parameters"][0] == result["parameters"][1]


def test_matches_the_original_gradients(golden):
    made, x = golden.fill(Mamba3(64, d_state=16, headdim=16)), golden.seeded(2, 50, 64).requires_grad_()
    y, _ = made(x)
    (y * golden.seeded(2, 50, 64, seed=99)).sum().backward()
    named = dict(made.named_parameters())
    gradients = [named[name].grad for name in golden.meta_of("core_mamba3_siso_grad")["gradient_order"]]
    assert len(gradients) == len(named)
    assert max(golden.compare("core_mamba3_siso_grad", [y, x.grad, *gradients])["errors"]) < 1e-4


def written_out(made, x):
    """One sequence (length, d_model) through the mixer, head by head, with complex numbers for the states that turn."""
    N, R, S, G = made.d_state, made.rank, made.angles, made.ngroups
    sizes = [made.d_inner, made.d_inner, N * G * R, N * G * R, *[made.nheads] * 3, S]
    z, v, B, C, dt, a, lam, angle = made.in_proj(x).split(sizes, -1)
    B, C = (
        F.rms_norm(t.unflatten(-1, (R, G, N)), (N,), norm.weight, 1e-5)
        for t, norm in ((B, made.B_norm), (C, made.C_norm))
    )
    rate = F.softplus(a) if made.A_activation == "softplus" else heavy_tail(a)
    dt, lam = F.softplus(dt + made.dt_bias), torch.sigmoid(lam)
    first = torch.arange(S) * (2 if made.rotation == "pairs" else 1)
    second = first + (1 if made.rotation == "pairs" else N // 2)
    outputs = []
    for head in range(made.nheads):
        group, place = head // (made.nheads // G), slice(head * made.headdim, (head + 1) * made.headdim)
        theta, h, before = torch.zeros(S, **DOUBLE), torch.zeros(made.headdim, N, **DOUBLE), 0
        rows = []
        for t in range(len(x)):
            theta = theta + dt[t, head] * math.pi * torch.tanh(angle[t])
            keys = []
            for values, bias in ((B, made.B_bias), (C, made.C_bias)):
                key = (values[t, :, group] + bias[head]).clone()
                turned = torch.complex(key[:, first], key[:, second]) * torch.polar(torch.ones_like(theta), theta)
                keys.append(key.index_copy(1, first, turned.real).index_copy(1, second, turned.imag))
            u, gate = v[t, place].expand(R, -1), z[t, place].expand(R, -1)
            if made.is_mimo:
                u, gate = u * made.mimo_x[head], gate * made.mimo_z[head]
            decay = torch.exp(-dt[t, head] * rate[t, head].clamp_min(made.A_floor))
            now = u.T @ keys[0]
            h = decay * h + (1 - lam[t, head]) * dt[t, head] * decay * before + lam[t, head] * dt[t, head] * now
            before = now
            y = keys[1] @ h.T + made.D[head] * u
            if made.norm is not None:
                y = F.rms_norm(y, y.shape[-1:], made.norm.weight[place], 1e-5)
            y = y * F.silu(gate)
            rows.append((y * made.mimo_o[head]).sum(0) if made.is_mimo else y[0])
        outputs.append(torch.stack(rows))
    return made.out_proj(torch.cat(outputs, -1))


@pytest.mark.parametrize(
    "options",
    [
        {"ngroups": 2},
        {"rope_fraction": 1.0, "A_activation": "softplus", "is_outproj_norm": True},
        {"rotation": "halves", "A_floor": 0.9},
        {"is_mimo": True, "mimo_rank": 3, "ngroups": 2},
        {"is_mimo": True, "mimo_rank": 2, "rotation": "pairs", "is_outproj_norm": True},
        {"d_state": 7, "rope_fraction": 1.0},
        {"d_state": 7, "is_mimo": True},
    ],
)
def test_is_the_recurrence_written_out(options):
    torch.manual_seed(0)
    made = Mamba3(12, **{"d_state": 8, "headdim": 6} | options, **DOUBLE)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    x = torch.randn(1, 7, 12, **DOUBLE)
    torch.testing.assert_close(made(x)[0][0], written_out(made, x[0]))


def test_wrong_options_are_refused():
    for options, text in (
        ({"A_activation": "heavy"}, "heavy_tail"), ({"rotation": "pair"}, "rotation=pairs"), ({"headdim": 7}, "headdim"),
        ({"ngroups": 3}, "groups"), ({"rope_fraction": 1.5}, "rope_fraction"), ({"d_state": 2, "rope_fraction": 0.4}, "turn"),
        ({"is_mimo": True, "mimo_rank": 0}, "mimo_rank"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=text):
            Mamba3(16, **{"d_state": 8, "headdim": 8} | options)


def test_initial_values_and_names():
    made = Mamba3(64, d_state=16, headdim=32, is_mimo=True, is_outproj_norm=True, dtype=torch.bfloat16)
    assert set(made.state_dict()) == {
        "dt_bias", "B_bias", "C_bias", "mimo_x", "mimo_z", "mimo_o", "D", "in_proj.weight", "B_norm.weight",
        "C_norm.weight", "norm.weight", "out_proj.weight",
    }  # fmt: skip
    assert made.dt_bias.dtype == made.B_bias.dtype == made.mimo_x.dtype == made.D.dtype == torch.float32
    assert made.mimo_x.eq(0.25).all()
    assert made.mimo_z.eq(1).all()
    assert made.B_bias.eq(1).all()
    assert made.D._no_weight_decay
    assert get("mamba3") is Mamba3


def test_heavy_tail():
    x = torch.tensor([-3.0, -1.0, 0.0, 2.0], requires_grad=True)
    y = heavy_tail(x)
    torch.testing.assert_close(y, torch.tensor([0.25, 0.5, 1.0, 3.0]))
    torch.testing.assert_close(torch.autograd.grad(y.sum(), x)[0], torch.tensor([1 / 16, 0.25, 1.0, 1.0]))


@pytest.mark.parametrize("rotation", ["pairs", "halves"])
def test_turning_keeps_lengths_and_depends_on_differences_alone(rotation):
    x, y, a, b = (torch.randn(4, n, **DOUBLE) for n in (9, 9, 3, 3))

    def turned(t, angle):
        return turn(t, angle.cos(), angle.sin(), rotation)

    torch.testing.assert_close(turned(x, a).norm(dim=-1), x.norm(dim=-1))
    together = (turned(x, a) * turned(y, b)).sum(-1)
    torch.testing.assert_close((x * turned(y, b - a)).sum(-1), together)
