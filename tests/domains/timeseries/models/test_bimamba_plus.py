import numpy as np
import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.domains.timeseries.models.bimamba_plus import BiMambaPlus, build, mixes_channels, rank_correlation

SMALL = {
    "lookback": 13,
    "horizon": 5,
    "variables": 3,
    "d_model": 8,
    "d_ff": 12,
    "d_state": 3,
    "patch_len": 4,
    "stride": 2,
}


def bimamba(seed=0, **options):
    torch.manual_seed(seed)
    return BiMambaPlus(**{**SMALL, **options}).double().eval()


def window(batch=2, variables=3, seed=1):
    return torch.randn(batch, 13, variables, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_matches_the_original_model(golden):
    model = golden.fill(BiMambaPlus(96, 96, 7))
    x = golden.seeded(4, 96, 7)
    with torch.no_grad():
        result = golden.compare("ts_bimamba_plus", model(x), model)
    assert max(result["errors"]) < 1e-5
    assert not result["missing"]
    assert not result["extra"]
    assert not result["shapes"]
    assert result["parameters"][0] == result["parameters"][1]
    published = golden.fill(BiMambaPlus(96, 96, 7, compat="published"))
    with torch.no_grad():
        assert (
            golden.compare("ts_bimamba_plus", published(x))["errors"][0] > 1e-3
        )  # the gate of the repository's Python
        published = golden.fill(BiMambaPlus(96, 96, 7, gate="forget", compat="published"))
        assert golden.compare("ts_bimamba_plus", published(x))["errors"][0] < 1e-5


@pytest.mark.parametrize("mixing", [False, True])
def test_the_layer_against_its_formula(mixing):
    model, x = bimamba(channel_mixing=mixing, use_norm=False), window()
    layer = model.encoder.mamba_layers[0]
    cut = torch.cat([x, x[:, -1:]], 1).transpose(1, 2).unfold(2, 4, 2)
    tokens = model.local_token_layer.value_embedding(cut) + model.local_token_layer.position_embedding.pos[:, :6]
    assert tokens.shape == (2, 3, 6, 8)
    sequences = (tokens.transpose(1, 2) if mixing else tokens).flatten(0, 1)
    forwards = layer.addnorm_for.norm(sequences + layer.mamba_forward(sequences)[0])
    backwards = layer.addnorm_back.norm(sequences + layer.mamba_backward(sequences)[0])
    said = forwards + backwards
    said = model.encoder.norm(layer.addnorm_ffn.norm(said + layer.ffn(said)))
    said = said.unflatten(0, (2, 6)).transpose(1, 2) if mixing else said.unflatten(0, (2, 3))
    torch.testing.assert_close(model.features(x), said)
    torch.testing.assert_close(model(x), model.head.linear(said.flatten(2)).transpose(1, 2))


def test_who_reads_whom():
    independent, mixing, x = bimamba(), bimamba(channel_mixing=True), window()
    other = x.clone()
    other[..., 1] = window(seed=5)[..., 1]
    torch.testing.assert_close(independent(other)[..., [0, 2]], independent(x)[..., [0, 2]])
    assert not torch.allclose(mixing(other)[..., 0], mixing(x)[..., 0])
    assert not torch.allclose(mixing(other)[..., 2], mixing(x)[..., 2])


def test_marks_are_series_beside_the_variables():
    model, x, marks = (
        bimamba(channel_mixing=True, mark_tokens=True, mark_features=2),
        window(),
        window(variables=2, seed=3),
    )
    assert model(x, marks).shape == (2, 5, 3)
    assert not torch.allclose(model(x, marks), model(x))
    assert bimamba(mark_features=2)(x, marks).equal(bimamba(mark_features=2)(x))


def test_a_lone_direction_is_normalised_once_or_as_published_twice():
    once, twice = (bimamba(scan="raster", gate="forget", compat=compat) for compat in ("corrected", "published"))
    assert not any("back" in name for name in once.state_dict())
    layer, x = twice.encoder.mamba_layers[0], torch.randn(2, 5, 8, dtype=torch.float64)
    said = layer.addnorm_for.norm(x + layer.mamba_forward(x)[0])
    again = layer.addnorm_for.norm(x + said)
    torch.testing.assert_close(layer(x), layer.addnorm_ffn.norm(again + layer.ffn(again)))
    layer = once.encoder.mamba_layers[0]
    torch.testing.assert_close(layer(x), layer.addnorm_ffn.norm(said + layer.ffn(said)))


def test_the_newest_values_are_seen():
    """Of 13 steps in patches of 3, 2 apart, no remainder; of 14 the published code sees none of the last."""
    options = {"lookback": 14, "patch_len": 3, "use_norm": False, "gate": "forget"}
    corrected, published = bimamba(**options), bimamba(**options, compat="published")
    x = torch.randn(2, 14, 3, dtype=torch.float64)
    other = torch.cat([x[:, :-1], x[:, -1:] + 1], 1)
    assert torch.equal(published(other), published(x))
    assert not torch.allclose(corrected(other), corrected(x))
    cut = bimamba(**options, padding=False)
    assert torch.equal(cut(other), cut(x))


def test_forms():
    assert "local_token_layer.position_embedding.pos" in dict(bimamba(learned_positions=True).named_parameters())
    assert not any("position" in name for name in bimamba(positions=False).state_dict())
    model, x = bimamba(residual=False), torch.randn(2, 5, 8, dtype=torch.float64)
    layer = model.encoder.mamba_layers[0]
    said = layer.addnorm_for.norm(layer.mamba_forward(x)[0]) + layer.addnorm_back.norm(layer.mamba_backward(x)[0])
    torch.testing.assert_close(layer(x), layer.addnorm_ffn.norm(layer.ffn(said)))
    assert bimamba(variables=None)(window(variables=8)).shape == (2, 5, 8)
    for wrong in ({"gate": "open"}, {"activation": "tanh"}, {"patch_len": 14}):
        with pytest.raises(UserError):
            bimamba(**wrong)


def test_rank_correlation():
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(0).integers(0, 9, (40, 4)).astype(float)
    np.testing.assert_allclose(rank_correlation(values), stats.spearmanr(values).statistic)
    curve = np.linspace(0, 3, 20)
    np.testing.assert_allclose(rank_correlation(np.stack([curve, curve**3, -np.exp(curve)], 1))[0], [1, 1, -1])
    assert rank_correlation(np.stack([curve, np.ones(20)], 1))[0, 1] == 0


def test_the_decider():
    def correlation(*upper):
        matrix = np.eye(3)
        matrix[0, 1], matrix[0, 2], matrix[1, 2] = upper
        return np.maximum(matrix, matrix.T) if min(upper) >= 0 else matrix + matrix.T - np.eye(3)

    assert mixes_channels(correlation(0.7, 0.1, 0.1))  # 1 high of 2 positive: .5 >= .4
    assert not mixes_channels(correlation(0.5, 0.5, 0.5))
    assert not mixes_channels(correlation(0.7, 0.1, 0.1), threshold=0.45)
    assert not mixes_channels(correlation(-0.7, -0.7, -0.7))
    assert not mixes_channels(np.eye(1))
    describe = {"lookback": 13, "horizon": 5, "variables": 3}
    assert build({**describe, "rank_correlation": correlation(0.7, 0.1, 0.1)}).channel_mixing
    assert not build({**describe, "rank_correlation": correlation(0.5, 0.5, 0.5)}).channel_mixing
    assert not build(describe).channel_mixing
    assert build(describe, channel_mixing=True).channel_mixing
