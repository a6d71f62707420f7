import pytest
import torch
from torch.nn import functional as F

from polymamba.core.errors import UserError
from polymamba.core.mixers import Mamba2
from polymamba.domains.recommendation.models.ssd4rec import build
from polymamba.domains.recommendation.models.state_space import StateSpace

DESCRIBE = {"items": 199, "length": 50}


def test_meets_the_record(meets_scores):
    meets_scores("rec_ssd4rec", build(DESCRIBE, compat="published"))


def test_the_two_forms_have_the_same_keys():
    shapes = [
        {k: v.shape for k, v in build(DESCRIBE, compat=c).state_dict().items()} for c in ("corrected", "published")
    ]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(("head_channels", "mixer"), [(32, StateSpace), (16, Mamba2)])
def test_hardswish_where_their_heads_are_no_multiple_of_8(head_channels, mixer):
    layers = build(DESCRIBE, head_channels=head_channels, compat="published").ssd_layers
    assert {type(layer.ssd) for layer in layers} == {mixer}
    layers = build(DESCRIBE, head_channels=head_channels).ssd_layers
    assert {type(layer.ssd) for layer in layers} == {Mamba2}


@torch.no_grad()
def test_the_state_space_is_mamba2(golden):
    """With SiLU the core's mixer; with Hardswish its convolution, activation and norm by hand."""
    core = golden.fill(Mamba2(32, 4, headdim=16, bias=True, norm_eps=1e-12)).double()
    x, seq_idx = golden.seeded(2, 9, 32).double(), torch.tensor([[-1, -1, 0, 0, 0, 1, 1, 1, 1], [0] * 6 + [-1] * 3])
    for hardswish in (False, True):
        ours = StateSpace(32, 4, 4, 2, 16, hardswish).double()
        ours.load_state_dict(core.state_dict())
        if not hardswish:
            torch.testing.assert_close(ours(x, seq_idx=seq_idx)[0], core(x, seq_idx=seq_idx)[0])
            for mine, theirs in zip(ours(x, seq_idx=seq_idx)[1], core(x, seq_idx=seq_idx)[1], strict=True):
                torch.testing.assert_close(mine, theirs)
    z, xbc, dt = (x @ core.in_proj.weight.T + core.in_proj.bias).split([64, 72, 4], -1)
    weight = core.conv1d.weight
    xbc = F.hardswish(F.conv1d(F.pad(xbc.transpose(1, 2), (3, 0)), weight, core.conv1d.bias, groups=72)).transpose(1, 2)
    inner, B, C = xbc.split([64, 4, 4], -1)
    step, state, said = F.softplus(dt + core.dt_bias), x.new_zeros(2, 4, 16, 4), []
    for at in range(9):
        h = inner[:, at].unflatten(-1, (4, 16))
        decay = (step[:, at] * -core.A_log.exp()).exp()[..., None, None]
        state = decay * state + (step[:, at, :, None] * h)[..., None] * B[:, at, None, None]
        said.append(((state * C[:, at, None, None]).sum(-1) + core.D[:, None] * h).flatten(1))
    y = torch.stack(said, 1) * F.silu(z)
    y = y / (y.square().mean(-1, keepdim=True) + 1e-12).sqrt() * core.norm.weight
    torch.testing.assert_close(ours(x)[0], y @ core.out_proj.weight.T + core.out_proj.bias)


def test_what_does_not_fit():
    with pytest.raises(UserError, match="heads must divide"):
        build(DESCRIBE, head_channels=48)
    with pytest.raises(UserError, match="reads forwards"):
        build(DESCRIBE, scan="bidirectional", compat="published")
