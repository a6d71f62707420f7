"""Ranks and metrics against torchmetrics' retrieval metrics and by hand."""

import numpy as np
import pytest
import torch
from torchmetrics.retrieval import RetrievalHitRate, RetrievalMRR, RetrievalNormalizedDCG

from polymamba.core.errors import UserError
from polymamba.domains.recommendation import top_k
from polymamba.domains.recommendation.models.sequential import SequentialModel
from polymamba.domains.recommendation.ranking import Coverage, OfGroup, of_offers, of_ranks
from polymamba.domains.recommendation.top_k import best_items, sampled_ranks

ITEMS = 23


class Given(SequentialModel):
    """Scores are the hidden states themselves."""

    def scores(self, hidden, items=None):
        return hidden if items is None else hidden[..., items]


@pytest.fixture
def model():
    return Given(ITEMS, 5, 4)


def scores(batch, levels=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    found = torch.rand(batch, ITEMS + 1, generator=generator)
    return found if levels is None else (found * levels).floor()


def targets_of(batch):
    return torch.randint(1, ITEMS + 1, (batch,), generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("cells", [2**25, 9 * 8, 1])
@pytest.mark.parametrize("levels", [None, 4, 1])
def test_ranks_and_lists_by_hand(model, monkeypatch, cells, levels):
    monkeypatch.setitem(top_k.CELLS, "cpu", cells)  # a part of the items at a time
    hidden, targets = scores(9, levels), targets_of(9)
    best = best_items(model, hidden, 6, targets)
    for row, target in enumerate(targets.tolist()):
        own = hidden[row, target]
        others = [hidden[row, item] for item in range(1, ITEMS + 1) if item != target]
        assert best.ranks[row] == 1 + sum(bool(each >= own) for each in others)
        assert best.tied[row] == sum(bool(each == own) for each in others)
        order = sorted(range(1, ITEMS + 1), key=lambda item: (-float(hidden[row, item]), item))
        assert best.items[row].tolist() == order[:6]
        assert best.scores[row].tolist() == hidden[row, order[:6]].tolist()


def test_ranks_alone_and_targets_that_were_to_be_hidden(model):
    hidden, targets = scores(9), targets_of(9)
    ranks = best_items(model, hidden, 6, targets).ranks
    alone = best_items(model, hidden, 0, targets, hide=targets[:, None])
    assert alone.ranks.tolist() == ranks.tolist()
    assert alone.items.shape == (9, 0)


@pytest.mark.parametrize("cells", [2**25, 20])
def test_places_without_the_items_seen_are_those_where_they_are_hidden(model, monkeypatch, cells):
    monkeypatch.setitem(top_k.CELLS, "cpu", cells)
    hidden, targets = scores(30, 5), targets_of(30)
    seen = torch.randint(
        0, ITEMS + 1, (30, 12), generator=torch.Generator().manual_seed(2)
    )  # some twice, some the target
    both = best_items(model, hidden, 3, targets, seen=seen)
    assert torch.equal(both.ranks, best_items(model, hidden, 3, targets).ranks)
    assert torch.equal(both.unseen, best_items(model, hidden, 3, targets, hide=seen).ranks)
    assert (both.unseen < both.ranks).any()


def test_sampled_ranks_are_among_items_the_user_has_not_had(model, monkeypatch):
    hidden, targets = scores(9), targets_of(9)
    seen = torch.stack([torch.randperm(ITEMS)[:15] + 1 for _ in range(9)])
    asked = []

    def kept(model, hidden, items):
        asked.append(items)
        return hidden.gather(1, items)

    monkeypatch.setattr(top_k, "of_each", kept)
    ranks = sampled_ranks(model, hidden, targets, seen, 50, torch.Generator().manual_seed(0))
    for row, target in enumerate(targets.tolist()):
        drawn = asked[0][row, 1:].tolist()
        assert asked[0][row, 0] == target
        assert set(drawn).isdisjoint({target, *seen[row].tolist()})
        assert len(set(drawn)) >= 5
        assert ranks[row] == 1 + sum(bool(hidden[row, each] >= hidden[row, target]) for each in drawn)
    with pytest.raises(UserError, match="sampled metrics"):
        sampled_ranks(model, hidden, targets, torch.arange(1, ITEMS).repeat(9, 1), 5, torch.Generator())


@pytest.mark.parametrize("levels", [None, 300, 7, 1])
def test_the_first_of_many_columns_are_those_of_a_stable_sort(levels):
    found = torch.rand(20, 64 * 40 + 17, generator=torch.Generator().manual_seed(3))
    found = found if levels is None else (found * levels).floor()
    found[3], found[4, 5], found[5, :2000] = -torch.inf, torch.inf, -torch.inf
    for k in (1, 6, 19):
        values, columns = top_k._first_best(found, k)
        expected = found.sort(dim=1, descending=True, stable=True)
        assert torch.equal(columns, expected.indices[:, :k])
        assert torch.equal(values, expected.values[:, :k])


@pytest.mark.parametrize("cells", [2**25, 20])
def test_hidden_items_and_candidates(model, monkeypatch, cells):
    monkeypatch.setitem(top_k.CELLS, "cpu", cells)
    hidden, targets = scores(4), targets_of(4)
    hide = torch.tensor([[1, 2, 3, 0], [9, 9, 0, 0], [0, 0, 0, 0], [23, 22, 5, 4]])
    found = best_items(model, hidden, ITEMS, hide=hide)
    for row in range(4):
        away = set(hide[row].tolist()) - {0}
        kept = [item for item in found.items[row].tolist() if item]
        assert set(kept) == set(range(1, ITEMS + 1)) - away
        assert found.items[row, len(kept) :].tolist() == [0] * len(away)
    only = torch.tensor([2, 3, 5, 11, 23])
    few = best_items(model, hidden, 10, targets, candidates=only)
    assert few.items.shape == (4, 5)
    assert all(sorted(row) == only.tolist() for row in few.items.tolist())
    for row, target in enumerate(targets.tolist()):
        ahead = sum(bool(hidden[row, item] >= hidden[row, target]) for item in only.tolist() if item != target)
        assert few.ranks[row] == 1 + ahead


def test_a_model_that_says_nan_has_no_hits(model):
    assert (
        best_items(model, torch.full((2, ITEMS + 1), torch.nan), 3, torch.tensor([1, 5])).ranks.tolist() == [ITEMS] * 2
    )


@pytest.mark.parametrize("levels", [None, 5])
def test_metrics_are_torchmetrics(model, levels):
    hidden, targets = scores(50, levels), targets_of(50)
    ranks = best_items(model, hidden, 10, targets).ranks
    found = of_ranks(ranks)
    # the same rankings without ties: places as scores, the target behind all that are as good
    order = hidden[:, 1:].double() - 1e-9 * torch.nn.functional.one_hot(targets - 1, ITEMS)
    order = order.argsort(dim=1, stable=True).argsort(dim=1, stable=True).double()
    right = torch.nn.functional.one_hot(targets - 1, ITEMS).bool()
    index = torch.arange(50)[:, None].expand(50, ITEMS)
    for cut in (5, 10, 20):
        for name, metric in (("hr", RetrievalHitRate), ("ndcg", RetrievalNormalizedDCG), ("mrr", RetrievalMRR)):
            expected = metric(top_k=cut)(order.flatten(), right.flatten(), indexes=index.flatten())
            assert float(found[f"{name}@{cut}"]) == pytest.approx(float(expected), abs=1e-6), (name, cut)


def test_metrics_by_hand_in_double_precision():
    found = of_ranks(torch.tensor([1, 3, 11, 500]))
    assert float(found["ndcg@10"]) == pytest.approx((1 + 0.5) / 4, abs=1e-12)
    assert float(found["hr@5"]) == 0.5
    assert float(found["hr@20"]) == 0.75
    assert float(found["mrr"]) == pytest.approx((1 + 1 / 3 + 1 / 11 + 1 / 500) / 4, abs=1e-12)
    assert float(found["mrr@10"]) == pytest.approx((1 + 1 / 3) / 4, abs=1e-12)


def test_groups_coverage_novelty_and_popularity():
    group, hits = OfGroup("ndcg"), OfGroup("hr")
    group.update(torch.tensor([1, 3, 11]), torch.tensor([True, False, True]))
    group.update(torch.tensor([3]), torch.tensor([True]))
    assert float(group.compute()) == pytest.approx((1 + 0 + 0.5) / 3)
    hits.update(torch.tensor([1, 3, 11]), torch.tensor([False, True, True]))
    hits.update(torch.tensor([4]), torch.tensor([False]))
    assert float(hits.compute()) == 0.5
    coverage = Coverage(10)
    coverage.update(torch.tensor([[1, 2], [2, 3]]))
    coverage.update(torch.tensor([[0, 3]]))
    assert float(coverage.compute()) == pytest.approx(0.3)
    counts = torch.tensor([0, 3, 1, 0])
    found = of_offers(torch.tensor([[1, 3]]), counts)
    assert float(found["popularity@2"]) == pytest.approx(((3 + 0) / 2) / (4 / 3))
    assert float(found["novelty@2"]) == pytest.approx(-(torch.tensor([4 / 7, 1 / 7]).log2().mean()))


@pytest.mark.parametrize("levels", [None, 6])
def test_metrics_are_those_of_rankings_written_out(model, levels):
    """Every definition anew in numpy, from the whole ranking of each event."""
    hidden, targets = scores(60, levels, seed=5), targets_of(60)
    best = best_items(model, hidden, 20, targets)
    found = of_ranks(best.ranks)
    table, gains = hidden.double().numpy(), {}
    for row, target in enumerate(targets.tolist()):
        others = [item for item in range(1, ITEMS + 1) if item != target]
        ranking = sorted([*others, target], key=lambda item: (-table[row, item], item == target))
        relevant = np.array([item == target for item in ranking], float)
        for cut in (5, 10, 20):
            top = relevant[:cut]
            discounts = np.log2(np.arange(2, len(top) + 2))
            reciprocal = max(top / np.arange(1, len(top) + 1))
            for name, value in (("hr", top.any()), ("ndcg", (top / discounts).sum()), ("mrr", reciprocal)):
                gains.setdefault(f"{name}@{cut}", []).append(float(value))
    for name, values in gains.items():
        assert float(found[name]) == pytest.approx(np.mean(values), abs=1e-9), name


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("levels", [None, 6])
def test_metrics_are_those_of_ranx(model, levels):
    """`make bench` installs it. ranx breaks ties as it likes, so the ranking is given to it in our order, without any."""
    ranx = pytest.importorskip("ranx")
    hidden, targets = scores(60, levels, seed=5), targets_of(60)
    found = of_ranks(best_items(model, hidden, 20, targets).ranks)
    qrels, run = {}, {}
    for row, target in enumerate(targets.tolist()):
        order = sorted(range(1, ITEMS + 1), key=lambda item: (-float(hidden[row, item]), item == target))
        qrels[str(row)] = {str(target): 1}
        run[str(row)] = {str(item): float(ITEMS - place) for place, item in enumerate(order)}
    names = [f"{name}@{cut}" for name in ("hit_rate", "ndcg", "mrr", "recall") for cut in (5, 10, 20)]
    theirs = ranx.evaluate(ranx.Qrels(qrels), ranx.Run(run), names)
    for name, value in theirs.items():
        ours = name.replace("hit_rate", "hr").replace("recall", "hr")  # one right item: the same
        assert float(found[ours]) == pytest.approx(value, abs=1e-9), name
