import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.domains.recommendation.models import item_knn
from polymamba.domains.recommendation.models.item_knn import build


def similarity(users, items, first, second, shrink):
    had = [{u for u, i in zip(users.tolist(), items.tolist(), strict=True) if i == item} for item in (first, second)]
    below = (len(had[0]) * len(had[1])) ** 0.5 + shrink
    return len(had[0] & had[1]) / below if had[0] and had[1] else 0.0


@pytest.mark.parametrize(("neighbours", "shrink", "cells"), [(100, 0.0, 2**25), (4, 2.0, 40)])
def test_scores_by_hand(monkeypatch, neighbours, shrink, cells):
    monkeypatch.setattr(item_knn, "CELLS", cells)  # several blocks
    generator = torch.Generator().manual_seed(0)
    users, items = (torch.randint(1, high, (120,), generator=generator) for high in (15, 19))
    model = build({"items": 20, "length": 3}, neighbours, shrink).fit(users * 1_000_003, items)
    history = [4, 9, 4, 13]
    expected = torch.zeros(21)
    for asked in history[-3:]:
        near = torch.tensor([0.0] + [similarity(users, items, asked, other, shrink) for other in range(1, 21)])
        near[asked] = 0
        expected += near * (near >= near.topk(min(neighbours, 20)).values[-1])
    scores = model.scores(model.encode(torch.tensor([history])))
    if neighbours == 4:  # equal neighbours: any of them may be the last one kept
        assert scores.sum() <= expected.sum() + 1e-6
        sure = torch.tensor([0.0])
        assert (scores[0] <= expected + 1e-6).all()
        assert scores.sum() > sure
    else:
        torch.testing.assert_close(scores[0], expected)


def test_a_neighbour_counts_once_a_user():
    model = build({"items": 4, "length": 5}).fit(torch.tensor([1, 1, 1, 2, 2]), torch.tensor([1, 1, 2, 1, 3]))
    scores = model.scores(model.encode(torch.tensor([[1]])))[0]
    assert scores[2:].tolist() == pytest.approx([2**-0.5, 2**-0.5, 0.0])
    assert model.scores(model.encode(torch.tensor([[1]])), torch.tensor([3, 2])).tolist() == [scores[[3, 2]].tolist()]


def test_events_of_nobody_and_items_that_do_not_exist():
    model = build({"items": 4, "length": 5}).fit(*torch.zeros(2, 0, dtype=torch.int64))
    assert not model.scores(model.encode(torch.tensor([[1]]))).any()
    with pytest.raises(UserError, match="do not exist"):
        model.fit(torch.tensor([1]), torch.tensor([5]))
