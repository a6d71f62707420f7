import torch

from polymamba.core.packing import runs
from polymamba.domains.recommendation.models.sasrec import build
from polymamba.domains.recommendation.models.sequential import Events
from polymamba.domains.recommendation.models.transformer import sight


def test_meets_the_record(meets_scores):
    meets_scores("rec_sasrec", build({"items": 199, "length": 50}))


def events(seq_idx, plain=False):
    seq_idx = torch.tensor([seq_idx])
    return Events(seq_idx, None if plain else seq_idx, runs(seq_idx), runs(seq_idx), None, {})


def test_who_sees_whom():
    found = sight(events([-1, 4, 4, 2]), torch.tensor([[0, -1, 0]]))
    assert found.number.tolist() == [[0, -1, 0, -1, 0, 0, 1]]
    assert found.mask[0, 0].int().tolist() == [
        [0, 0, 0, 1, 0, 0, 0],  # padding, itself
        [1, 0, 1, 0, 1, 0, 0],  # the state's sequence goes on
        [1, 0, 1, 0, 1, 1, 0],
        [0, 0, 0, 0, 0, 0, 1],  # another one
    ]
    assert sight(events([-1, 4]), torch.tensor([[0, 1, -1]])).number.tolist() == [[0, 1, -1, -1, 1]]
    found = sight(events([-1, 4, 4, 2]), None, causal=False)
    assert found.mask[0, 0].int().tolist() == [[1, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 1]]


def test_no_mask_where_causality_says_it_all():
    assert sight(events([0, 0], plain=True))[:2] == (None, True)
    assert sight(events([0, 0], plain=True), causal=False)[:2] == (None, False)
    assert sight(events([0], plain=True), torch.tensor([[0, 0]]))[:2] == (None, False)
    assert sight(events([0], plain=True), torch.tensor([[-1, 0]])).mask.int().tolist() == [[[[0, 1, 1]]]]
    assert sight(events([0, 0], plain=True), torch.tensor([[0]])).mask.int().tolist() == [[[[1, 1, 0], [1, 1, 1]]]]
