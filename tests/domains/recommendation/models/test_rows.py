import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.core.packing import runs
from polymamba.domains.recommendation.models.rows import Rows, check_padding

NUMBER = runs(torch.tensor([[-1, 5, 5, -1, 7], [-1, -1, -1, -1, -1], [0, 0, 0, 0, 0], [1, 2, 1, -1, -1]]))


def test_sequences_stand_apart_from_the_left():
    x = torch.arange(1.0, 21).view(4, 5)
    rows = Rows(NUMBER)
    assert rows.lengths.tolist() == [2, 1, 5, 1, 1, 1]
    assert rows.first.tolist() == [0, 2, 2, 3]
    assert rows.last[~rows.empty].tolist() == [1, 2, 5]
    assert rows.empty.tolist() == [False, True, False, False]
    apart = rows.apart(x)
    expected = [[2, 3, 0, 0, 0], [5, 0, 0, 0, 0], [11, 12, 13, 14, 15], *([n, 0, 0, 0, 0] for n in (16, 17, 18))]
    assert apart.tolist() == expected
    assert rows.seq_idx.tolist() == [[0 if n else -1 for n in row] for row in expected]
    assert rows.together(apart).equal(x * (NUMBER >= 0))
    wide = torch.randn(4, 5, 3, 2)
    assert rows.together(rows.apart(wide)).equal(wide * (NUMBER >= 0)[..., None, None])
    assert Rows(NUMBER, 7).apart(x).shape == (6, 7)


def test_gradients_go_there_and_back():
    x = torch.randn(4, 5, 3, dtype=torch.float64, requires_grad=True)
    rows = Rows(NUMBER)
    assert torch.autograd.gradcheck(lambda x: rows.together(rows.apart(x).sin()), x)


@pytest.mark.parametrize("shape", [(0, 4), (3, 0)])
def test_no_events(shape):
    rows = Rows(torch.zeros(shape, dtype=torch.int64))
    x = torch.ones(*shape, 2)
    assert rows.apart(x).shape == (0, 0, 2)
    assert rows.together(rows.apart(x)).shape == x.shape
    check_padding(torch.zeros(shape, dtype=torch.int64), "right")


def test_padding_of_the_published_forms():
    right, left = torch.tensor([[0, 0, -1]]), torch.tensor([[-1, 0, 0]])
    check_padding(right, "right")
    check_padding(left, "left")
    for number, side in (
        (left, "right"),
        (right, "left"),
        (torch.tensor([[0, -1, 0]]), "right"),
        (torch.tensor([[0, 1]]), "right"),
    ):
        with pytest.raises(UserError, match=f"padded on the {side}"):
            check_padding(number, side)
