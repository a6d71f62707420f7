import torch

from polymamba.domains.recommendation.models.bert4rec import BERT4Rec, build


def test_meets_the_record(meets_the_record, published_histories):
    def answers(model):
        return model.scores(model.encode(published_histories))

    meets_the_record("rec_bert4rec", build({"items": 199, "length": 50}, compat="published"), answers)


@torch.no_grad()
def test_the_mask_stands_behind_the_history(golden):
    items = torch.tensor([[3, 9, 27, 1, 5, 0], [4, 0, 0, 0, 0, 0], [1, 2, 3, 4, 5, 6]])
    for compat, asked in (
        ("corrected", [[3, 9, 27, 1, 5, 31], [4, 31], [2, 3, 4, 5, 6, 31]]),
        ("published", [[9, 27, 1, 5, 31], [31], [2, 3, 4, 5, 6, 31]]),
    ):
        model = golden.fill(BERT4Rec(30, 6, 32, compat=compat)).double()
        assert model.mask == 31
        expected = torch.cat([model(torch.tensor([row]))[0][:, -1] for row in asked])
        torch.testing.assert_close(model.encode(items), expected)
        longer = torch.cat([torch.tensor([[7, 8], [0, 0], [7, 8]]), items], 1)
        torch.testing.assert_close(model.encode(longer)[1:], model.encode(items)[1:])


@torch.no_grad()
def test_the_bias_of_an_item_is_in_its_score(golden):
    model = golden.fill(BERT4Rec(30, 6, 32)).double()
    hidden = model.encode(torch.tensor([[3, 9]]))
    expected = hidden @ model.item_embedding.weight[:31].T + model.output_bias
    torch.testing.assert_close(model.scores(hidden), expected)
    torch.testing.assert_close(model.scores(hidden, torch.tensor([7, 2])), expected[:, [7, 2]])


@torch.no_grad()
def test_what_is_asked_for_has_the_last_events_behaviour(golden):
    model = golden.fill(build({"items": 30, "length": 6, "behaviours": 3}, channels=32)).double()
    items, kinds = torch.tensor([[3, 9]]), torch.tensor([[1, 2]])
    asked = model(torch.tensor([[3, 9, 31]]), features={"behaviour": torch.tensor([[1, 2, 2]])})[0][:, -1]
    torch.testing.assert_close(model.encode(items, features={"behaviour": kinds}), asked)
