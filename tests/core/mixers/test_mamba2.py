import torch
from torch.nn import functional as F

from polymamba.core.mixers import get
from polymamba.core.mixers.gated_norm import GatedRMSNorm
from polymamba.core.mixers.mamba2 import Mamba2

DOUBLE = {"dtype": torch.float64}


def test_matches_the_original_mixer(golden):
    made = golden.fill(Mamba2(128, d_state=32, headdim=32))
    result = golden.compare("core_mamba2_g1", made(golden.seeded(2, 100, 128))[0], made)
    assert max(result["errors"]) < 1e-5
    assert not (result["missing"])
    assert not (result["extra"])
    assert not (result["shapes"])
    assert result["parameters"][0] == result["parameters"][1]


def written_out(made, x):
    """One sequence (length, d_model) through the mixer, written as sums; heads share B and C in groups."""
    part = made.in_proj(x).split([made.d_mlp, made.d_mlp, made.d_ssm, made.d_xbc, made.nheads], -1)
    gate, value, z, xbc, dt = part
    padded = torch.cat([xbc.new_zeros(made.d_conv - 1, made.d_xbc), xbc])
    xbc = sum(padded[k : k + len(x)] * made.conv1d.weight[:, 0, k] for k in range(made.d_conv))
    xbc = F.silu(xbc if made.conv1d.bias is None else xbc + made.conv1d.bias)
    size = made.ngroups * made.d_state
    u, B, C = xbc.split([made.d_ssm, size, size], -1)
    u, B, C = (t.unflatten(-1, (n, -1)) for t, n in ((u, made.nheads), (B, made.ngroups), (C, made.ngroups)))
    dt = F.softplus(dt + made.dt_bias).clamp(*made.dt_limit)
    D = made.D.view(made.nheads, -1)
    h, rows = torch.zeros(made.nheads, made.headdim, made.d_state, **DOUBLE), []
    for t in range(len(x)):
        b, c = (k[t].repeat_interleave(made.nheads // made.ngroups, 0) for k in (B, C))
        decay = torch.exp(-dt[t] * made.A_log.exp())
        h = decay[:, None, None] * h + (dt[t, :, None] * u[t])[..., None] * b[:, None]
        rows.append((h @ c[..., None])[..., 0] + D * u[t])
    y = torch.stack(rows).flatten(1)
    if made.norm is None:
        y = y * F.silu(z)
    else:
        y = y if made.norm.norm_before_gate else y * F.silu(z)
        y = y.unflatten(-1, (made.ngroups, -1))
        y = (y * torch.rsqrt(y.square().mean(-1, keepdim=True) + 1e-5)).flatten(-2) * made.norm.weight
        y = y * F.silu(z) if made.norm.norm_before_gate else y
    return made.out_proj(torch.cat([F.silu(gate) * value, y], -1))


def test_is_the_recurrence_written_out():
    options = [
        {"ngroups": 2},
        {"d_ssm": 16, "D_has_hdim": True, "norm_before_gate": True, "bias": True},
        {"rmsnorm": False, "dt_limit": (0.02, 0.05), "conv_bias": False, "d_conv": 2, "ngroups": 4},
        {"norm_before_gate": True, "ngroups": 2, "expand": 3, "headdim": 4},
    ]
    for chosen in options:
        torch.manual_seed(0)
        made = Mamba2(16, **{"d_state": 5, "headdim": 8} | chosen, **DOUBLE)
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        x = torch.randn(1, 9, 16, **DOUBLE)
        torch.testing.assert_close(made(x)[0][0], written_out(made, x[0]))


def test_group_norm_is_a_norm_per_group():
    norm, x, z = GatedRMSNorm(12, groups=3, **DOUBLE), torch.randn(2, 5, 12, **DOUBLE), torch.randn(2, 5, 12, **DOUBLE)
    found = norm(x, z).unflatten(-1, (3, 4))
    for group in range(3):
        part = (x * F.silu(z)).unflatten(-1, (3, 4))[:, :, group]
        torch.testing.assert_close(found[:, :, group], F.rms_norm(part, (4,), None, 1e-5))


def test_initial_values_and_names():
    torch.manual_seed(0)
    made = Mamba2(256, A_init_range=(2, 3), dt_min=0.01, dt_max=0.2, dtype=torch.bfloat16)
    assert set(made.state_dict()) == {
        "dt_bias", "A_log", "D", "in_proj.weight", "conv1d.weight", "conv1d.bias", "norm.weight", "out_proj.weight",
    }  # fmt: skip
    assert made.A_log.dtype == made.D.dtype == made.dt_bias.dtype == torch.float32
    assert made.in_proj.weight.dtype == torch.bfloat16
    assert 2 <= made.A_log.exp().min() <= made.A_log.exp().max() <= 3.0001
    step = F.softplus(made.dt_bias)
    assert 0.0099 < step.min() < step.max() < 0.2001
    assert made.A_log._no_weight_decay
    assert made.D._no_weight_decay
    assert made.dt_bias._no_reinit
    assert get("mamba2") is Mamba2
