import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.domains.recommendation.models.popularity import build


def test_scores_are_logarithms_of_the_shares_of_the_events_for_everybody():
    model = build({"items": 4, "length": 5}).fit(torch.tensor([1, 1, 2, 3, 3]), torch.tensor([2, 2, 2, 4, 0]))
    scores = model.scores(model.encode(torch.tensor([[1, 2], [0, 0]])))
    expected = torch.tensor([[1, 4, 1, 2]] * 2).div(8).log()
    torch.testing.assert_close(scores[:, 1:], expected)
    assert scores.requires_grad
    hidden, states = model(torch.tensor([[1, 2], [0, 0]]))
    torch.testing.assert_close(model.scores(hidden, torch.tensor([4, 1])), expected[:, None, [3, 0]].expand(2, 2, 2))
    assert states.seen.tolist() == [2, 0]
    assert build({"items": 4, "length": 5}).scores(hidden)[..., 1:].unique().numel() == 1
    known = (torch.tensor([1, 1]), torch.tensor([2, 4]))
    assert build({"items": 4, "length": 5, "events": known}).counts.tolist() == [0, 0, 1, 0, 1]
    with pytest.raises(UserError, match="do not exist"):
        model.fit(torch.tensor([1]), torch.tensor([5]))
