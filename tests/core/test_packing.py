import pytest
import torch

from polymamba.core import scans
from polymamba.core.errors import UserError
from polymamba.core.packing import (
    has_padding,
    places,
    runs,
    seq_idx_from_cu_seqlens,
    seq_idx_from_lengths,
    seq_idx_from_mask,
    skip_padding,
)


def test_from_a_mask():
    found = seq_idx_from_mask(torch.tensor([[0, 1, 1], [True, True, False]]))
    assert found.dtype == torch.int32
    assert found.tolist() == [[-1, 0, 0], [0, 0, -1]]
    with pytest.raises(UserError, match="row per sequence"):
        seq_idx_from_mask(torch.ones(3))


def test_from_lengths():
    lengths = torch.tensor([2, 0, 3])
    assert seq_idx_from_lengths(lengths).tolist() == [[0, 0, -1], [-1, -1, -1], [0, 0, 0]]
    assert seq_idx_from_lengths(lengths, 4, "left").tolist() == [[-1, -1, 0, 0], [-1] * 4, [-1, 0, 0, 0]]
    for wrong in ({"length": 2}, {"side": "middle"}):
        with pytest.raises(UserError):
            seq_idx_from_lengths(lengths, **wrong)


def test_from_cu_seqlens():
    assert seq_idx_from_cu_seqlens(torch.tensor([0, 2, 2, 5])).tolist() == [[0, 0, 2, 2, 2]]
    assert seq_idx_from_cu_seqlens(torch.tensor([0, 1, 3], dtype=torch.int32), 5).tolist() == [[0, 1, 1, -1, -1]]
    assert seq_idx_from_cu_seqlens(torch.tensor([0])).shape == (1, 0)
    for wrong in ([1, 2], [0, 3, 2], [[0, 1]]):
        with pytest.raises(UserError, match="cu_seqlens"):
            seq_idx_from_cu_seqlens(torch.tensor(wrong))
    with pytest.raises(UserError, match="longer"):
        seq_idx_from_cu_seqlens(torch.tensor([0, 4]), 3)


def test_has_padding():
    assert not has_padding(torch.tensor([[0, 0, 3]]))
    assert has_padding(torch.tensor([[0, -2, 3]]))


def test_runs_are_counted_and_padding_does_not_end_one():
    found = runs(torch.tensor([[-1, 4, 4, -1, 4, 2, 2, 4], [7, 7, -1, -2, 8, 8, 8, -1], [-1] * 8]))
    assert found.tolist() == [[-1, 0, 0, -1, 0, 1, 1, 2], [0, 0, -1, -1, 1, 1, 1, -1], [-1] * 8]


def test_padding_is_left_out_of_every_path():
    order = torch.tensor([[3, 0, 2, 1], [1, 2, -1, -1]])
    found = skip_padding(order, torch.tensor([[0, 0, 0, 0], [-1, 5, 5, -1]]))
    assert found.dtype == torch.int32
    assert found[0].tolist() == order.tolist()
    assert found[1].tolist() == [[2, 1, -1, -1], [1, 2, -1, -1]]
    assert skip_padding(None, torch.tensor([[-1, 0, 0], [0, -1, 1]])).tolist() == [[[1, 2, -1]], [[0, 2, -1]]]


@pytest.mark.parametrize("mode", ["cross", "skip", "hilbert"])
def test_what_is_left_of_a_path_keeps_its_order(mode):
    order = scans.get(mode).order((4, 5)).long()
    seq_idx = torch.randint(-1, 2, (3, 20), generator=torch.Generator().manual_seed(0))
    found = skip_padding(order, seq_idx)
    for row in range(3):
        for path, before in zip(found[row], order, strict=True):
            expected = [t for t in before.tolist() if t >= 0 and seq_idx[row, t] >= 0]
            assert path.tolist() == expected + [-1] * (len(path) - len(expected))


def test_places_are_counted_in_each_run():
    number = torch.tensor([[-1, 0, 0, -1, 0, 1, 1, 2], [0, 1, 1, 1, -1, -1, 2, 2]])
    found = places(number)
    assert found[number >= 0].tolist() == [0, 1, 2, 0, 1, 0, 0, 0, 1, 2, 0, 1]
