import pytest
import torch
from torch.nn import functional as F

from polymamba.domains.recommendation import losses
from polymamba.domains.recommendation.models.gru4rec import GRU4Rec


@pytest.fixture
def parts():
    torch.manual_seed(0)
    model = GRU4Rec(9, 5, 6, 8).double()
    with torch.no_grad():
        model.item_embedding.weight.mul_(20)
    return model, torch.randn(7, 6, dtype=torch.float64), torch.randint(1, 10, (7,))


@pytest.mark.parametrize("cells", [2**25, 25, 1])
def test_cross_entropy_in_parts_is_that_of_the_whole(parts, monkeypatch, cells):
    model, hidden, targets = parts
    monkeypatch.setattr(losses, "CELLS", cells)
    found = []
    for part in (False, True):
        own = hidden.clone().requires_grad_()
        if part:
            loss = losses.full(model, own, targets)
        else:
            loss = F.cross_entropy(model.scores(own)[:, 1:].float(), targets - 1)
        found.append((loss, *torch.autograd.grad(loss, [own, model.item_embedding.weight])))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_a_sampled_softmax_of_very_many_is_that_of_all(parts):
    model, hidden, targets = parts
    torch.manual_seed(1)
    many = losses.sampled(model, hidden, targets, 400_000)
    torch.testing.assert_close(many.float(), losses.full(model, hidden, targets).float(), rtol=0.01, atol=0.005)


def test_a_binary_loss_asks_for_others_than_the_target(parts, monkeypatch):
    model, hidden, targets = parts
    seen = []
    original = losses._of_each

    def kept(model, hidden, items, place):
        seen.append(items[place.reshape(len(hidden), -1)])
        return original(model, hidden, items, place)

    monkeypatch.setattr(losses, "_of_each", kept)
    loss = losses.bce(model, hidden, targets, 500)
    [asked] = seen
    assert asked[:, 0].tolist() == targets.tolist()
    assert not (asked[:, 1:] == targets[:, None]).any()
    assert asked[:, 1:].unique().tolist() == list(range(1, 10))
    scores = model.scores(hidden).float().gather(1, asked)
    expected = F.binary_cross_entropy_with_logits(scores[:, 0], torch.ones(7)) + F.binary_cross_entropy_with_logits(
        scores[:, 1:], torch.zeros(7, 500)
    )
    torch.testing.assert_close(loss, expected)
