import pytest
import torch
from torch import nn
from torch.nn import functional as F

from polymamba.core.errors import UserError
from polymamba.core.moe import MixtureOfExperts, balance_loss

DOUBLE = {"dtype": torch.float64}


def made(seed=0, **options):
    torch.manual_seed(seed)
    return MixtureOfExperts(**{"d_model": 6, "d_hidden": 5, "num_experts": 4} | options, **DOUBLE)


def tokens(batch=2, length=9, seed=1):
    return torch.randn(batch, length, 6, generator=torch.Generator().manual_seed(seed), **DOUBLE)


def one_by_one(layer, x, capacity, real=None):
    """The layer written out: positions first, then samples; a token's choices in the order of their scores."""
    y, room = torch.zeros_like(x), [capacity] * layer.num_experts
    for t in range(x.shape[1]):
        for b in range(x.shape[0]):
            if real is not None and not real[b, t]:
                continue
            logits = layer.router.weight @ x[b, t]
            scores = logits.softmax(0) if layer.scores == "softmax" else logits.sigmoid()
            best = scores.argsort(descending=True)[: layer.top_k]
            total = scores[best].sum() if layer.normalise else 1
            for e in best.tolist():
                if room[e] == 0:
                    continue
                room[e] -= 1
                hidden = layer.fc1[e] @ x[b, t]
                hidden = hidden[:5] * F.relu(hidden[5:]) if layer.gated else F.relu(hidden)
                y[b, t] += scores[e] / total * (layer.fc2[e] @ hidden)
    return y


@pytest.mark.parametrize(
    "options", [{}, {"top_k": 2}, {"top_k": 3, "gated": True, "normalise": True, "scores": "sigmoid"}]
)
@pytest.mark.parametrize("factor", [None, 0.5, 1.0, 4.0])
def test_equals_experts_one_token_at_a_time(options, factor):
    layer, x = made(capacity_factor=factor, **options), tokens()
    capacity = 10**6 if factor is None else -(-int(factor * 1000) * layer.top_k * 18 // 4000)
    expected = one_by_one(layer, x, capacity)
    torch.testing.assert_close(layer(x), expected)
    assert factor != 0.5 or (layer(x) == 0).all(-1).any()
    weight = tokens(seed=2)
    found, wanted = (torch.autograd.grad((y * weight).sum(), list(layer.parameters())) for y in (layer(x), expected))
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("factor", [None, 0.6])
def test_padding_goes_to_no_expert(factor):
    layer, x = made(capacity_factor=factor, top_k=2), tokens()
    seq_idx = torch.zeros(2, 9, dtype=torch.int32)
    seq_idx[0, :4] = seq_idx[1, 7:] = -1
    capacity = 10**6 if factor is None else -(-6 * 2 * 12 // 40)
    found = layer(x, seq_idx)
    torch.testing.assert_close(found, one_by_one(layer, x, capacity, seq_idx >= 0))
    with_others = layer.balance_loss
    layer(torch.where((seq_idx >= 0)[..., None], x, 9 * x), seq_idx)
    torch.testing.assert_close(layer.balance_loss, with_others)


@pytest.mark.parametrize("factor", [0.3, 0.5])
def test_a_padded_batch_gives_what_the_unpadded_one_does(factor):
    layer, x = made(capacity_factor=factor, top_k=2), tokens()
    padded = torch.cat([tokens(length=4, seed=5), x, tokens(length=3, seed=6)], 1)
    seq_idx = torch.full((2, 16), -1).index_fill(1, torch.arange(4, 13), 0)
    expected = layer(x)
    balance = layer.balance_loss
    assert (expected == 0).all(-1).any()
    torch.testing.assert_close(layer(padded, seq_idx)[:, 4:13], expected)
    torch.testing.assert_close(layer.balance_loss, balance)


def test_all_padding_and_no_tokens():
    for factor in (None, 1.0):
        layer = made(capacity_factor=factor)
        assert not layer(tokens(), torch.full((2, 9), -1)).any()
        assert layer.balance_loss == 0
        assert layer.eval()(tokens(length=0)).shape == (2, 0, 6)


def test_what_a_token_gets_does_not_depend_on_later_ones():
    layer, x = made(capacity_factor=0.5), tokens()
    changed = x.clone()
    changed[:, 5:] = 0.1 * tokens(seed=7)[:, 5:]
    torch.testing.assert_close(layer(changed)[:, :5], layer(x)[:, :5], rtol=0, atol=0)


def test_in_evaluation_pieces_equal_the_whole():
    layer, x = made(capacity_factor=0.5).eval(), tokens()
    whole = layer(x)
    torch.testing.assert_close(torch.cat([layer(x[:, :2]), layer(x[:, 2:])], 1), whole)
    torch.testing.assert_close(whole, one_by_one(layer, x, 10**6))
    assert layer.balance_loss is None


def test_balance_loss_is_switch_transformers():
    layer, x = made(top_k=2), tokens()
    layer(x)
    scores = (x @ layer.router.weight.T).softmax(-1).flatten(0, 1)
    chosen = torch.zeros(4, **DOUBLE)
    for row in scores:
        chosen[row.argsort(descending=True)[:2]] += 1
    expected = 4 * (chosen / chosen.sum() * scores.mean(0)).sum()
    torch.testing.assert_close(layer.balance_loss, expected)
    (gradient,) = torch.autograd.grad(layer.balance_loss, layer.router.weight)
    assert gradient.abs().sum() > 0
    with torch.no_grad():
        layer.router.weight.zero_()
    layer(x)
    torch.testing.assert_close(layer.balance_loss, torch.ones((), **DOUBLE))


def test_descending_the_balance_loss_evens_the_experts_out():
    layer, x = made(num_experts=8), tokens(4, 50)
    with torch.no_grad():
        layer.router.weight[0] += x.mean((0, 1)) * 20
    descent = torch.optim.Adam([layer.router.weight], 0.02)
    used = []
    for _ in range(150):
        layer(x)
        used.append((x @ layer.router.weight.T).argmax(-1).flatten().bincount(minlength=8).max() / 200)
        descent.zero_grad()
        layer.balance_loss.backward()
        descent.step()
    assert used[-1] < 0.3 < used[0]


def test_the_losses_of_a_model_are_summed():
    model = nn.Sequential(made(), nn.Linear(6, 6, **DOUBLE), made(1))
    assert balance_loss(model) is None
    model(tokens())
    torch.testing.assert_close(balance_loss(model), model[0].balance_loss + model[2].balance_loss)
    assert balance_loss(nn.Linear(2, 2)) is None


def test_autocast_and_half_precision():
    layer = MixtureOfExperts(6, 5, 4, top_k=2, dtype=torch.bfloat16)
    x = tokens().bfloat16()
    assert layer(x).dtype == torch.bfloat16
    assert layer.balance_loss.dtype == torch.float32
    full = MixtureOfExperts(6, 5, 4, top_k=2)
    for layer in (full, full.eval()):
        with torch.autocast("cpu", torch.bfloat16):
            layer(tokens().float()).sum().backward()


def test_wrong_options():
    for wrong in ({"top_k": 5}, {"top_k": 0}, {"scores": "max"}, {"activation": "tanh"}, {"capacity_factor": 0.0}):
        with pytest.raises(UserError):
            made(**wrong)
