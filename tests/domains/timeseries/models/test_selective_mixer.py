"""The mixers of Bi-Mamba+, CMamba and MambaTS against the recurrence written out, and against core's Mamba where they are it."""

import pytest
import torch
from torch.nn import functional as F

from polymamba.core.mixers import Mamba
from polymamba.domains.timeseries.models.bimamba_plus import MambaPlus
from polymamba.domains.timeseries.models.cmamba import MMamba
from polymamba.domains.timeseries.models.mambats import TemporalMamba

LENGTHS = (1, 2, 7)
MAKE = {
    "plus": lambda **options: MambaPlus(6, 9, d_state=4, d_conv=2, **options),
    "plain": lambda **options: MambaPlus(6, 9, d_state=4, d_conv=2, gate="plain", **options),
    "m_mamba": lambda **options: MMamba(6, 9, d_state=4, dt_rank=3, **options),
    "temporal": lambda **options: TemporalMamba(6, 9, d_state=4, dropout=0.3, **options),
    "temporal_conv": lambda **options: TemporalMamba(6, 9, d_state=4, d_conv=3, **options),
}


def made(name, seed=0, **options):
    torch.manual_seed(seed)
    mixer = MAKE[name](**options).double().eval()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return mixer


def tokens(length, batch=2):
    generator = torch.Generator().manual_seed(length)
    return torch.randn(batch, length, 6, generator=generator, dtype=torch.float64)


def by_hand(name, mixer, x):
    """The mixer, token after token."""
    u, z = mixer.in_proj(x).chunk(2, -1)
    if mixer.d_conv:
        wide = F.pad(u.transpose(1, 2), (mixer.d_conv - 1, 0))
        u = F.silu(F.conv1d(wide, mixer.conv1d.weight, mixer.conv1d.bias, groups=u.shape[-1])).transpose(1, 2)
    elif name == "m_mamba":
        u = F.silu(u)
    sizes = [mixer.dt_rank, mixer.d_state, mixer.d_state, *([u.shape[-1]] if name == "m_mamba" else [])]
    step, B, C, *rest = mixer.x_proj(u).split(sizes, -1)
    step, A, h, answers = F.softplus(mixer.dt_proj(step)), -mixer.A_log.exp(), 0, []
    for t in range(x.shape[1]):
        h = torch.exp(step[:, t, :, None] * A) * h + step[:, t, :, None] * B[:, t, None] * u[:, t, :, None]
        answers.append((h * C[:, t, None]).sum(-1))
    y, skip = torch.stack(answers, 1), (rest[0] if rest else mixer.D) * u
    said = y * z * z.sigmoid() + skip * (1 - z.sigmoid()) if name == "plus" else (y + skip) * F.silu(z)
    return mixer.out_proj(said)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("name", MAKE)
def test_against_the_recurrence(name, length):
    mixer, x = made(name), tokens(length).requires_grad_()
    y, expected = mixer(x)[0], by_hand(name, mixer, x)
    torch.testing.assert_close(y, expected)
    weight = torch.randn_like(y)
    inputs = [x, *mixer.parameters()]
    found = torch.autograd.grad((y * weight).sum(), inputs, allow_unused=True, materialize_grads=True)
    wanted = torch.autograd.grad((expected * weight).sum(), inputs, allow_unused=True, materialize_grads=True)
    for mine, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("name", MAKE)
def test_scans(name):
    forwards, x = made(name), tokens(7)
    backwards, both = made(name, scan="reverse"), made(name, scan="bidirectional")
    torch.testing.assert_close(backwards(x)[0], forwards(x.flip(1))[0].flip(1))
    bias = 0 if both.out_proj.bias is None else both.out_proj.bias
    torch.testing.assert_close(both(x)[0] - bias, (forwards(x)[0] + backwards(x)[0]) / 2 - bias)
    assert made(name, scan="skip")(x)[0].shape == x.shape


def test_the_plain_gate_is_core_s_mamba():
    mixer = made("plain")
    mamba = Mamba(d_model=6, d_state=4, d_conv=2, expand=1.5).double()
    mamba.load_state_dict(mixer.state_dict())
    x = tokens(7)
    torch.testing.assert_close(mixer(x)[0], mamba(x)[0])


@pytest.mark.parametrize("name", MAKE)
def test_low_precision(name):
    mixer, x = made(name), tokens(7)
    expected = mixer(x)[0]
    y = mixer.bfloat16()(x.bfloat16())[0]
    assert y.dtype == torch.bfloat16
    assert (y.double() - expected).norm() / expected.norm() < 5e-2


def test_dropout_of_what_is_selected_by():
    assert "x_proj.0.weight" in made("temporal").state_dict()
    assert "x_proj.weight" in made("temporal_conv").state_dict()
    mixer, x = made("temporal").train(), tokens(7)
    assert not torch.equal(mixer(x)[0], mixer(x)[0])
