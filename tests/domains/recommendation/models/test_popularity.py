import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.domains.recommendation.models.popularity import build


def test_scores_are_shares_of_the_events_for_everybody():
    model = build({"items": 4, "length": 5}).fit(torch.tensor([1, 1, 2, 3, 3]), torch.tensor([2, 2, 2, 4, 0]))
    scores = model.scores(model.encode(torch.tensor([[1, 2], [0, 0]])))
    assert scores.tolist() == [[0, 0, 0.75, 0, 0.25]] * 2
    hidden, states = model(torch.tensor([[1, 2], [0, 0]]))
    assert model.scores(hidden, torch.tensor([4, 1])).tolist() == [[[0.25, 0]] * 2] * 2
    assert states.seen.tolist() == [2, 0]
    assert not build({"items": 4, "length": 5}).scores(hidden).any()
    with pytest.raises(UserError, match="do not exist"):
        model.fit(torch.tensor([1]), torch.tensor([5]))
