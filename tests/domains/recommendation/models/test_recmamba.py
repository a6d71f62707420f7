import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.domains.recommendation.models.recmamba import RecMamba, build


def test_meets_the_record(meets_the_record, golden):
    items = golden.seeded(4, 50, low=1, high=200)
    items = items * (torch.arange(50) >= torch.tensor([0, 19, 43, 49])[:, None])

    def answers(model):
        return model.scores(model.encode(items)), model(items)[0]

    meets_the_record("rec_recmamba", build({"items": 199, "length": 50}, compat="published"), answers)


@torch.no_grad()
def test_positions_and_residuals(golden):
    items = torch.tensor([[3, 9, 27, 1]])
    for compat in ("published", "corrected"):
        model = golden.fill(RecMamba(30, 12, 32, layers=2, d_state=4, compat=compat)).double()
        places = torch.arange(4) + (8 if compat == "published" else 0)
        x = model.item_emb.weight[items] * 32**0.5 + model.pos_emb.weight[places]
        for mixer in (model.mamba1, model.mamba2):
            x = mixer(x)[0] + (x if compat == "corrected" else 0)
        torch.testing.assert_close(model(items)[0], x)


def test_the_published_form(golden):
    model = golden.fill(RecMamba(30, 12, 32, d_state=4, compat="published"))
    assert model.causal
    assert not model.carries_state
    assert model(torch.tensor([[0, 3]]))[1] is None
    with pytest.raises(UserError, match="padded on the left"):
        model(torch.tensor([[3, 0]]))
    with pytest.raises(UserError, match="longer than the model's"):
        model(torch.ones(1, 13, dtype=torch.int64))
