import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.domains.timeseries.models.smamba import SIZES, SMamba, build

SMALL = {"lookback": 12, "horizon": 5, "d_model": 8, "d_ff": 16, "n_layer": 2}


def smamba(seed=0, **options):
    torch.manual_seed(seed)
    return SMamba(**{**SMALL, **options}).double().eval()


def window(variables=3, batch=2, seed=1):
    return torch.randn(batch, 12, variables, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_matches_the_original_model(golden):
    model = golden.fill(SMamba(96, 96, 4, compat="published"))
    x, marks = golden.seeded(4, 96, 7), golden.seeded(4, 96, 4, seed=77)
    with torch.no_grad():
        answer = model(x, marks)
    result = golden.compare("ts_smamba", answer, model)
    assert max(result["errors"]) < 1e-5
    assert not result["missing"]
    assert not result["extra"]
    assert not result["shapes"]
    assert result["parameters"][0] == result["parameters"][1]
    corrected = golden.fill(SMamba(96, 96, 4))
    with torch.no_grad():
        torch.testing.assert_close(corrected(x, marks), answer, rtol=0, atol=0)
    dead = golden.meta_of("ts_smamba")["parameters_dead"]
    assert sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in corrected.parameters()) == dead


def test_the_layer_against_its_formula():
    """x = LN(x + M1 x + flip M2 flip x), with flips written out; then the feed-forward network."""
    model = smamba()
    layer, x = model.encoder.attn_layers[0], torch.randn(2, 5, 8, dtype=torch.float64)
    backwards = layer.attention_r
    flipped = type(backwards)(d_model=8, d_state=2, d_conv=2, expand=1, scan="raster").double()
    flipped.load_state_dict(backwards.state_dict())
    mixed = layer.norm1(x + layer.attention(x)[0] + flipped(x.flip(1))[0].flip(1))
    inner = torch.nn.functional.gelu(layer.conv1(mixed))
    torch.testing.assert_close(layer(x), layer.norm2(mixed + layer.conv2(inner)))


def test_any_number_of_variables():
    model, x = smamba(), window(4)
    assert model(window(9)).shape == (2, 5, 9)
    assert not torch.allclose(model(x)[..., :2], model(x[..., :2]))  # variables are read together


def test_marks_are_tokens_that_answer_nothing():
    model, x, marks = smamba(mark_features=2), window(), window(2, seed=3)
    assert model(x, marks).shape == model(x).shape == (2, 5, 3)
    assert not torch.allclose(model(x, marks), model(x))
    assert model.features(x, marks).shape == (2, 3, 8)
    longer = torch.cat([marks, marks[:, :5]], 1)
    torch.testing.assert_close(model(x, longer), model(x, marks), rtol=0, atol=0)


def test_scans():
    assert not hasattr(smamba(scan="raster").encoder.attn_layers[0], "attention_r")
    forwards, backwards = smamba(scan="raster"), smamba(scan="reverse")
    backwards.load_state_dict(forwards.state_dict())
    x = window()
    torch.testing.assert_close(forwards(x), backwards(x.flip(2)).flip(2))


def test_scale_and_level_of_a_window_come_back():
    model, x = smamba(), window()
    torch.testing.assert_close(model(3 * x + 7), 3 * model(x) + 7, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", SIZES)
def test_sizes(size):
    model = build({"lookback": 24, "horizon": 8, "variables": 3}, size=size, d_ff=16)
    layer = model.encoder.attn_layers[0]
    assert len(model.encoder.attn_layers) == SIZES[size]["n_layer"]
    assert layer.conv1.weight.shape == (16, SIZES[size]["d_model"], 1)
    assert layer.attention.d_state == SIZES[size]["d_state"]


def test_an_unknown_size_is_refused():
    with pytest.raises(UserError, match="unknown model size"):
        build({"lookback": 24, "horizon": 8}, size="huge")
