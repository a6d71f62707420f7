"""Ranks and metrics against torchmetrics' retrieval metrics and by hand."""

import pytest
import torch
from torchmetrics.retrieval import RetrievalHitRate, RetrievalMRR, RetrievalNormalizedDCG

from polymamba.domains.recommendation import top_k
from polymamba.domains.recommendation.models.sequential import SequentialModel
from polymamba.domains.recommendation.ranking import Coverage, OfGroup, of_offers, of_ranks
from polymamba.domains.recommendation.top_k import best_items

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
    monkeypatch.setattr(top_k, "CELLS", cells)  # a part of the items at a time
    hidden, targets = scores(9, levels), targets_of(9)
    best = best_items(model, hidden, 6, targets)
    for row, target in enumerate(targets.tolist()):
        own = hidden[row, target]
        others = [hidden[row, item] for item in range(1, ITEMS + 1) if item != target]
        assert best.ranks[row] == 1 + sum(bool(each >= own) for each in others)
        order = sorted(range(1, ITEMS + 1), key=lambda item: (-float(hidden[row, item]), item))
        assert best.items[row].tolist() == order[:6]
        assert best.scores[row].tolist() == hidden[row, order[:6]].tolist()


@pytest.mark.parametrize("cells", [2**25, 20])
def test_hidden_items_and_candidates(model, monkeypatch, cells):
    monkeypatch.setattr(top_k, "CELLS", cells)
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
    group = OfGroup()
    group.update(torch.tensor([1, 3, 11]), torch.tensor([True, False, True]))
    group.update(torch.tensor([3]), torch.tensor([True]))
    assert float(group.compute()) == pytest.approx((1 + 0 + 0.5) / 3)
    coverage = Coverage(10)
    coverage.update(torch.tensor([[1, 2], [2, 3]]))
    coverage.update(torch.tensor([[0, 3]]))
    assert float(coverage.compute()) == pytest.approx(0.3)
    counts = torch.tensor([0, 3, 1, 0])
    found = of_offers(torch.tensor([[1, 3]]), counts)
    assert float(found["popularity@2"]) == pytest.approx(((3 + 0) / 2) / (4 / 3))
    assert float(found["novelty@2"]) == pytest.approx(-(torch.tensor([4 / 7, 1 / 7]).log2().mean()))
