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
    assert loss.dtype == torch.float32
    assert float(loss) == 200


def test_a_sampled_softmax_of_very_many_is_that_of_all(parts):
    model, hidden, targets = parts
    torch.manual_seed(1)
    many = losses.sampled(model, hidden, targets, 400_000)
    torch.testing.assert_close(many.float(), losses.full(model, hidden, targets).float(), rtol=0.01, atol=0.005)


@pytest.mark.parametrize("power", [0.0, 0.75, 1.0])
def test_the_sum_under_a_sampled_softmax_is_right_on_average(parts, monkeypatch, power):
    model, hidden, targets = parts
    shares = losses.shares_of(torch.tensor([0, 50, 3, 0, 9, 9, 1, 20, 0, 4]), power)
    assert (shares is None) == (power == 0)
    chances = torch.full((9,), 1 / 9).double() if shares is None else torch.cat([shares[:1], shares.diff()])
    scores = model.scores(hidden)[:, 1:].double()
    own, sums = scores.gather(1, targets[:, None] - 1)[:, 0], torch.zeros(7, dtype=torch.float64)
    for item, chance in enumerate(chances.tolist(), 1):  # all that can be drawn, each as often as it is
        middle = chances[:item].sum() - chance / 2
        monkeypatch.setattr(torch, "randint", lambda *_, item=item, **__: torch.tensor([item]))
        monkeypatch.setattr(torch, "rand", lambda *_, middle=middle, **__: middle[None])
        drawn = [losses.sampled(model, hidden[[e]], targets[[e]], 1, shares) for e in range(7)]
        # the loss of an event turned back into the sum under its logarithm
        sums += chance * (torch.stack(drawn).double() + own).exp().detach()
    torch.testing.assert_close(sums, scores.exp().sum(1).detach(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("others", [1, 500])
def test_a_binary_loss_asks_for_others_than_the_target(parts, monkeypatch, others):
    model, hidden, targets = parts
    seen = []
    original = losses.of_each

    def kept(model, hidden, items):
        seen.append(items)
        return original(model, hidden, items)

    monkeypatch.setattr(losses, "of_each", kept)
    loss = losses.bce(model, hidden, targets, others)
    [asked] = seen
    assert asked[:, 0].tolist() == targets.tolist()
    assert not (asked[:, 1:] == targets[:, None]).any()
    if others == 500:
        assert asked[:, 1:].unique().tolist() == list(range(1, 10))
    scores = model.scores(hidden).float().gather(1, asked)
    expected = F.binary_cross_entropy_with_logits(scores[:, 0], torch.ones(7)) + F.binary_cross_entropy_with_logits(
        scores[:, 1:], torch.zeros(7, others)
    )
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("items", [4, 2000])
def test_scores_of_each_events_own_items(items):
    model = HSTU(2000, 5, 6).double()
    hidden, asked = torch.randn(40, 6, dtype=torch.float64), torch.randint(1, items + 1, (40, 3))
    torch.testing.assert_close(losses.of_each(model, hidden, asked), model.scores(hidden).gather(1, asked).float())
