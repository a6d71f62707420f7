import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.domains.timeseries.models.encoder import Attention, PostNormLayer
from polymamba.domains.timeseries.models.itransformer import ITransformer


def test_matches_the_original_model(golden):
    model = golden.fill(ITransformer(96, 96, 4))
    with torch.no_grad():
        answer = model(golden.seeded(4, 96, 7), golden.seeded(4, 96, 4, seed=77))
    result = golden.compare("ts_itransformer", answer, model)
    assert max(result["errors"]) < 1e-5
    assert not result["missing"]
    assert not result["extra"]
    assert not result["shapes"]
    assert result["parameters"][0] == result["parameters"][1]


def test_the_order_of_the_variables_does_not_matter():
    torch.manual_seed(0)
    model, x = ITransformer(12, 5, d_model=8, d_ff=8, n_heads=2).double().eval(), torch.randn(2, 12, 6).double()
    order = torch.randperm(6)
    torch.testing.assert_close(model(x[..., order]), model(x)[..., order])


@pytest.mark.parametrize("causal", [False, True])
def test_attention_against_its_formula(causal):
    torch.manual_seed(0)
    layer, x = Attention(10, 3, causal=causal).double(), torch.randn(2, 7, 10).double()
    query, key, value = (
        projection(x).unflatten(-1, (3, 3)).transpose(1, 2)
        for projection in (layer.query_projection, layer.key_projection, layer.value_projection)
    )
    scores = query @ key.transpose(-1, -2) / 3**0.5
    if causal:
        scores = scores.masked_fill(torch.ones(7, 7).triu(1).bool(), -torch.inf)
    expected = layer.out_projection((scores.softmax(-1) @ value).transpose(1, 2).flatten(2))
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(layer(x[:, :1])[:, 0], expected[:, 0] if causal else layer(x[:, :1])[:, 0])


def test_what_cannot_be_is_refused():
    with pytest.raises(UserError, match="a head needs a channel"):
        Attention(4, 5)
    with pytest.raises(UserError, match="activation"):
        PostNormLayer(4, 4, activation="tanh")


def test_dropout_reaches_attention():
    torch.manual_seed(0)
    layer, x = Attention(8, 2, dropout=0.5), torch.randn(2, 5, 8)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))
