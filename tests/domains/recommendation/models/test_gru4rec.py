import torch

from polymamba.domains.recommendation.models.gru4rec import GRU, build


def test_meets_the_record(meets_scores):
    meets_scores("rec_gru4rec", build({"items": 199, "length": 50}))


@torch.no_grad()
def test_the_cell_by_hand(golden):
    model = golden.fill(build({"items": 30, "length": 12}, channels=32, inner=24)).double()
    items = torch.tensor([[3, 9, 27]])
    gru, h, said = model.gru_layers, torch.zeros(24, dtype=torch.float64), []
    for item in items[0]:
        given, kept = gru.weight_ih_l0 @ model.item_embedding.weight[item], gru.weight_hh_l0 @ h
        (r, z, n), (hr, hz, hn) = given.split(24), kept.split(24)
        z = torch.sigmoid(z + hz)
        h = (1 - z) * torch.tanh(n + torch.sigmoid(r + hr) * hn) + z * h
        said.append(model.dense(h))
    hidden, states = model(items)
    torch.testing.assert_close(hidden[0], torch.stack(said))
    torch.testing.assert_close(states.layers[0], h[None, None])


def test_autocast_does_not_reach_the_gru():
    torch.manual_seed(0)
    gru, x = GRU(4, 6, batch_first=True), torch.randn(2, 5, 4)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        y, state = gru(x.bfloat16())
    expected, last = gru(x.bfloat16().float())
    assert torch.equal(y, expected)
    assert torch.equal(state, last)
