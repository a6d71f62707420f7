import pytest
import torch
from torch import nn

from polymamba.core import linear
from polymamba.core.errors import UserError
from polymamba.core.mixers.mamba import Mamba
from polymamba.core.moe import MixtureOfExperts
from polymamba.core.stack import ResidualBlock, final_norm, make_norm, normalised, run_stack

DOUBLE = {"dtype": torch.float64}


class Scale(nn.Module):
    """A mixer whose state counts the calls."""

    def __init__(self, factor):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(float(factor), **DOUBLE))

    def forward(self, x, grid=None, state=None, seq_idx=None):
        return x * self.factor, (state or 0) + 1


class Zero(nn.Module):
    def forward(self, x):
        return x * 0


def blocks(count, **options):
    return nn.ModuleList(ResidualBlock(Scale(i + 2), make_norm("rms", 4, **DOUBLE), **options) for i in range(count))


def test_add_norm_mix():
    layers, x = blocks(3), torch.randn(2, 5, 4, **DOUBLE)
    stream = x
    for layer in layers:
        stream = stream + layer.mixer.factor * layer.norm(stream)
    norm = make_norm("layer", 4, **DOUBLE)
    result = run_stack(layers, x)
    torch.testing.assert_close(final_norm(result, norm), norm(stream))
    torch.testing.assert_close(result.residual + result.hidden, stream)


def test_norms_are_those_asked_for():
    x = torch.randn(3, 6, **DOUBLE)
    torch.testing.assert_close(make_norm("rms", 6, **DOUBLE)(x), x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt())
    centred = x - x.mean(-1, keepdim=True)
    torch.testing.assert_close(
        make_norm("layer", 6, **DOUBLE)(x), centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    )
    with pytest.raises(UserError, match="rms"):
        make_norm("rsm", 6)


def test_mlp_follows_the_mixer():
    mlp, norm2 = nn.Linear(4, 4, **DOUBLE), make_norm("rms", 4, **DOUBLE)
    block = ResidualBlock(Scale(2), make_norm("rms", 4, **DOUBLE), mlp, norm2)
    x = torch.randn(1, 3, 4, **DOUBLE)
    hidden, residual, _ = block(x)
    mixed = x + 2 * block.norm(x)
    torch.testing.assert_close(residual + hidden, mixed + mlp(norm2(mixed)))
    assert {"norm.weight", "mixer.factor", "norm2.weight", "mlp.weight", "mlp.bias"} == set(block.state_dict())


@pytest.mark.parametrize("training", [True, False])
def test_padding_takes_no_experts_room(training):
    torch.manual_seed(0)
    experts = MixtureOfExperts(8, 6, 4, top_k=2, capacity_factor=0.6, eval_capacity_factor=0.6, **DOUBLE)
    norms = [make_norm("rms", 8, **DOUBLE) for _ in range(2)]
    block = ResidualBlock(Mamba(8, d_state=4, **DOUBLE), norms[0], experts, norms[1]).train(training)
    x = torch.randn(2, 9, 8, **DOUBLE)
    hidden, residual, state = block(x)
    assert (hidden == 0).all(-1).any()
    padded = torch.cat([9 * torch.randn(2, 5, 8, **DOUBLE), x], 1)
    seq_idx = torch.tensor([-1] * 5 + [0] * 9).expand(2, -1)
    found = block(padded, None, None, None, seq_idx)
    torch.testing.assert_close(found[0][:, 5:], hidden)
    torch.testing.assert_close(found[1][:, 5:], residual)
    torch.testing.assert_close(found[2], state)


def test_drop_path_applies_to_what_is_added():
    block = ResidualBlock(Scale(2), make_norm("rms", 4, **DOUBLE), drop_path=Zero())
    hidden, before = torch.randn(2, 1, 3, 4, **DOUBLE)
    torch.testing.assert_close(block(hidden, before)[1], before)
    torch.testing.assert_close(block(hidden)[1], hidden)
    result = run_stack([block], hidden)
    torch.testing.assert_close(final_norm(result, block.norm, Zero()), block.norm(hidden))


@pytest.mark.parametrize("kept", [True, False])
def test_residual_in_float32(kept):
    block = ResidualBlock(nn.Identity(), make_norm("rms", 4), residual_in_fp32=kept).bfloat16()
    block.mixer = Scale(2).bfloat16()
    hidden, residual, _ = block(torch.randn(1, 3, 4).bfloat16())
    assert hidden.dtype == torch.bfloat16
    assert residual.dtype == (torch.float32 if kept else torch.bfloat16)
    _, residual, _ = block(hidden, residual)
    assert residual.dtype == (torch.float32 if kept else torch.bfloat16)


def test_float64_is_not_rounded_to_float32():
    _, residual, _ = blocks(1)[0](torch.randn(1, 3, 4, **DOUBLE))
    assert residual.dtype == torch.float64


def test_states_are_carried_layer_by_layer():
    layers, x = blocks(2), torch.randn(1, 3, 4, **DOUBLE)
    first = run_stack(layers, x)
    assert first.states == [1, 1]
    assert run_stack(layers, x, states=[4, 7]).states == [5, 8]


def test_pieces_equal_the_whole():
    torch.manual_seed(0)
    layers = nn.ModuleList(
        ResidualBlock(Mamba(8, d_state=4, **DOUBLE), make_norm("rms", 8, **DOUBLE)) for _ in range(2)
    )
    x = torch.randn(2, 11, 8, **DOUBLE)
    whole = run_stack(layers, x)
    states, found = None, []
    for begin, end in ((0, 4), (4, 5), (5, 11)):
        piece = run_stack(layers, x[:, begin:end], states=states)
        states = piece.states
        found.append(piece.residual + piece.hidden)
    torch.testing.assert_close(torch.cat(found, 1), whole.residual + whole.hidden)


def test_taken_layers():
    layers, x = blocks(3), torch.randn(1, 3, 4, **DOUBLE)
    taken = run_stack(layers, x, take={0, 2}).taken
    assert set(taken) == {0, 2}
    torch.testing.assert_close(taken[0], x + 2 * layers[0].norm(x))


def test_checkpointing_gives_the_same_gradients():
    torch.manual_seed(0)
    layers = nn.ModuleList(
        ResidualBlock(Mamba(8, d_state=4, scan="bidirectional", **DOUBLE), make_norm("rms", 8, **DOUBLE))
        for _ in range(2)
    )
    x, found = torch.randn(2, 7, 8, **DOUBLE), []
    for checkpointing in (False, True):
        calls = []
        hook = layers[0].mixer.in_proj.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        result = run_stack(layers, x, checkpointing=checkpointing)
        loss = (result.residual + result.hidden).square().sum()
        found.append(torch.autograd.grad(loss, list(layers.parameters())))
        hook.remove()
        assert len(calls) == 1 + checkpointing
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


def test_an_identity_in_place_of_a_norm():
    x = torch.randn(1, 2, 4)
    assert normalised(nn.Identity(), x) is x


def test_norms_of_many_numbers_are_one_kernel(monkeypatch):
    calls, real = [], linear.gated_norm
    monkeypatch.setattr(
        linear, "gated_norm", lambda x, *more, **options: (calls.append(x.shape), real(x, *more, **options))[1]
    )
    norm, g = torch.nn.RMSNorm(64, 1e-5), torch.Generator().manual_seed(0)
    x = torch.randn(2, linear.MANY // 64, 64, generator=g)
    torch.testing.assert_close(linear.normalised(norm, x), norm(x), rtol=1e-5, atol=1e-6)
    assert len(calls) == 1
    torch.testing.assert_close(linear.normalised(norm, x[:, :5]), norm(x[:, :5]), rtol=0, atol=0)
    torch.testing.assert_close(linear.normalised(torch.nn.RMSNorm(64), x), torch.nn.RMSNorm(64)(x), rtol=0, atol=0)
    assert len(calls) == 1
    torch.testing.assert_close(linear.normalised(norm, x, "reference"), norm(x), rtol=0, atol=0)
    traced = torch.compile(lambda t: linear.normalised(norm, t), backend="eager", fullgraph=True)
    torch.testing.assert_close(traced(x), norm(x), rtol=0, atol=0)
    assert len(calls) == 2
