import torch

from polymamba.domains.recommendation.models.matrrec import MaTrRec, build


def test_meets_the_record(meets_scores):
    meets_scores("rec_matrrec", build({"items": 199, "length": 50}, compat="published"))


@torch.no_grad()
def test_a_layer_is_a_mixer_and_then_a_transformer(golden):
    model = golden.fill(MaTrRec(30, 12, 32, heads=4, d_state=4)).double()
    items = torch.tensor([[3, 9, 27, 1, 3]])
    layer, x = model.mambatr_layers[0], model.LayerNorm(model.item_embedding.weight[items])
    x = layer.mamba.LayerNorm(layer.mamba.mamba(x)[0] + x)
    attention = layer.trm_encoder.multi_head_attention
    heads = [
        part(x).unflatten(-1, (4, 8)).transpose(1, 2) for part in (attention.query, attention.key, attention.value)
    ]
    scores = heads[0] @ heads[1].transpose(2, 3) / 8**0.5
    scores = scores.masked_fill(torch.ones(5, 5).triu(1).bool(), float("-inf")).softmax(-1)
    x = attention.LayerNorm(x + attention.dense((scores @ heads[2]).transpose(1, 2).flatten(2)))
    torch.testing.assert_close(model(items)[0], layer.trm_encoder.feed_forward(x))
