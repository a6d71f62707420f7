import pytest
import torch
from torch.nn import functional as F

from polymamba.domains.recommendation import losses, softmax
from polymamba.domains.recommendation.models.bert4rec import BERT4Rec
from polymamba.domains.recommendation.models.gru4rec import GRU4Rec
from polymamba.domains.recommendation.models.hstu import HSTU
from polymamba.domains.recommendation.models.popularity import Popularity


@pytest.fixture
def parts():
    torch.manual_seed(0)
    model = GRU4Rec(9, 5, 6, 8).double()
    with torch.no_grad():
        model.item_embedding.weight.mul_(20)
    return model, torch.randn(7, 6, dtype=torch.float64), torch.randint(1, 10, (7,))


@pytest.mark.parametrize("cells", [2**20, 25, 1])
@pytest.mark.parametrize("make", [GRU4Rec, HSTU, BERT4Rec, Popularity])
def test_cross_entropy_in_parts_is_that_of_the_whole(monkeypatch, cells, make):
    torch.manual_seed(0)
    model = make(9, 5) if make is Popularity else make(9, 5, 6)
    model = model.double()
    for weight in model.parameters():
        torch.nn.init.normal_(weight)
    monkeypatch.setattr(losses, "CELLS", cells)
    monkeypatch.setitem(softmax.CELLS, "cpu", cells)
    hidden = torch.randn(7, 1 if make is Popularity else 6, dtype=torch.float64)
    targets = torch.randint(1, 10, (7,))
    found = []
    for part in (False, True):
        own = hidden.clone().requires_grad_()
        whole = F.cross_entropy(model.scores(own)[:, 1:], targets - 1)
        loss = losses.full(model, own, targets) if part else whole
        wanted = [own, *(each for each in (*model.parameters(),) if make is not Popularity)]
        found.append((loss.double(), *torch.autograd.grad(3 * loss, wanted, allow_unused=True)))
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if make is Popularity else {"rtol": 1e-12, "atol": 1e-14}
    for one, other in zip(*found, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, **tolerance)
    with torch.no_grad():
        torch.testing.assert_close(losses.full(model, hidden, targets).double(), whole, **tolerance)


def test_large_scores_do_not_overflow():
    left, right = torch.tensor([[200.0], [-200.0]]), torch.tensor([[1.0], [-1.0]])
    loss = softmax.cross_entropy(left.bfloat16(), right, torch.tensor([1, 1]))
    assert loss.dtype == torch.float32 and float(loss) == 200


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
