import pytest
import torch
from torch.nn import functional as F

from polymamba.core.errors import UserError
from polymamba.domains.timeseries.models.mambaformer import LAYERS, Mambaformer

SMALL = {
    "lookback": 9,
    "horizon": 5,
    "variables": 3,
    "d_model": 8,
    "d_ff": 12,
    "n_heads": 2,
    "d_state": 3,
    "n_layer": 2,
}


def made(form, seed=0, **options):
    torch.manual_seed(seed)
    return Mambaformer(**{**SMALL, **options}, form=form).double().eval()


def window(length=9, variables=3, seed=1):
    return torch.randn(2, length, variables, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_matches_the_original_model(golden):
    model = golden.fill(Mambaformer(96, 96, 7, 4))
    with torch.no_grad():
        answer = model(golden.seeded(4, 96, 7), golden.seeded(4, 192, 4, seed=77))
    result = golden.compare("ts_mambaformer", answer, model)
    assert max(result["errors"]) < 1e-5
    assert not result["missing"]
    assert not result["extra"]
    assert not result["shapes"]
    assert result["parameters"][0] == result["parameters"][1]


def expected_stream(model, form, stream):
    if form == "mambaformer":
        stream = model.mamba_preprocess.norm(stream + model.mamba_preprocess.mamba(stream)[0])
    for layer in getattr(model, LAYERS[form]):
        if form == "mamba":
            stream = layer.norm(stream + layer.mamba(stream)[0])
        elif form == "transformer":
            stream = layer.norm1(stream + layer.self_attention(stream))
            stream = layer.norm2(stream + layer.conv2(F.gelu(layer.conv1(stream))))
        elif form == "mamba_attention":
            stream = layer.norm1(stream + layer.mamba(stream)[0])
            stream = layer.norm2(stream + layer.self_attention(stream))
        else:
            stream = layer.norm1(stream + layer.self_attention(stream))
            stream = layer.norm2(stream + layer.mamba(stream)[0])
    return stream


@pytest.mark.parametrize("form", LAYERS)
def test_each_form_against_its_formula(form):
    model, x, marks = made(form, mark_features=2), window(), window(14, 2, seed=3)
    embedding = model.dec_embedding
    empty = torch.cat([x, torch.zeros(2, 5, 3, dtype=torch.float64)], 1)
    wrapped = torch.cat([empty[:, -1:], empty, empty[:, :1]], 1).transpose(1, 2)
    stream = F.conv1d(wrapped, embedding.value_embedding.tokenConv.weight).transpose(1, 2)
    stream = stream + embedding.temporal_embedding.embed(marks)
    if form == "transformer":
        stream = stream + embedding.position_embedding.pe[:, :14]
    stream = expected_stream(model, form, stream)
    torch.testing.assert_close(model.features(x, marks), stream)
    torch.testing.assert_close(model(x, marks), model.out_proj(stream[:, 9:]))


@pytest.mark.parametrize("form", LAYERS)
def test_layers_read_what_came_before(form):
    model = made(form)
    stream = torch.randn(2, 14, 8, dtype=torch.float64)
    other = torch.cat([stream[:, :10], torch.randn(2, 4, 8, dtype=torch.float64)], 1)
    for layer in getattr(model, LAYERS[form]):
        torch.testing.assert_close(layer(other)[:, :10], layer(stream)[:, :10])


def test_the_calendar_of_the_horizon_is_needed():
    model, x = made("mambaformer", mark_features=2), window()
    with pytest.raises(UserError, match="calendar features"):
        model(x, window(9, 2))
    with pytest.raises(UserError, match="made with calendar features"):
        model(x)
    assert not any("temporal" in name or "position" in name for name in made("mambaformer").state_dict())
    assert made("mambaformer")(x).shape == (2, 5, 3)


def test_an_unknown_form_is_refused():
    with pytest.raises(UserError, match="unknown form"):
        made("mamba_mamba")


def test_long_sequences_have_positions():
    model = Mambaformer(5_100, 3, 1, form="transformer", d_model=8, d_ff=8, n_heads=1)
    assert model.dec_embedding.position_embedding.pe.shape == (1, 5_103, 8)
