import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.domains.timeseries.models.decomposition import decompose
from polymamba.domains.timeseries.models.patchtst import PatchTST

SMALL = {"lookback": 13, "horizon": 5, "variables": 3, "d_model": 8, "d_ff": 12, "n_layer": 2, "n_heads": 2}
SMALL |= {"patch_len": 4, "stride": 2}


def patchtst(seed=0, **options):
    torch.manual_seed(seed)
    return PatchTST(**{**SMALL, **options}).double().eval()


def window(seed=1):
    return torch.randn(2, 13, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_matches_the_original_model(golden):
    model = golden.fill(PatchTST(96, 96, 7))
    with torch.no_grad():
        result = golden.compare("ts_patchtst", model(golden.seeded(4, 96, 7)), model)
    assert max(result["errors"]) < 1e-5
    assert not result["missing"]
    assert not result["extra"]
    assert not result["shapes"]
    assert result["parameters"][0] == result["parameters"][1]


def test_scores_go_from_layer_to_layer():
    model, x = patchtst(), torch.randn(2, 6, 8, dtype=torch.float64)
    first, second = model.model.backbone.encoder.layers
    said, scores = first(x, None)
    alone = second(said, None)[1]
    torch.testing.assert_close(second(said, scores)[1], alone + scores)
    query, key = (
        layer(x).unflatten(-1, (2, 4)).transpose(1, 2) for layer in (first.self_attn.W_Q, first.self_attn.W_K)
    )
    torch.testing.assert_close(scores, query @ key.transpose(-1, -2) / 2)


def test_variables_are_independent_and_windows_scale():
    model, x = patchtst(), window()
    other = x.clone()
    other[..., 1] = window(5)[..., 1]
    torch.testing.assert_close(model(other)[..., [0, 2]], model(x)[..., [0, 2]])
    torch.testing.assert_close(model(4 * x - 3), 4 * model(x) - 3, rtol=1e-4, atol=1e-4)


def test_forms():
    x = window()
    own = patchtst(individual=True)
    assert [name for name in own.state_dict() if "head" in name][::2] == [
        f"model.head.linears.{i}.weight" for i in range(3)
    ]
    assert {"model.revin_layer.affine_weight", "model.revin_layer.affine_bias"} <= set(
        patchtst(affine=True).state_dict()
    )
    assert patchtst(padding=False).model.backbone.W_pos.shape == (5, 8)
    assert patchtst().model.backbone.W_pos.shape == (6, 8)
    last = patchtst(subtract_last=True)
    torch.testing.assert_close(last(x + 5), last(x) + 5)
    two = patchtst(decomposition=True, kernel_size=5)
    assert {name.split(".")[0] for name in two.state_dict()} == {"model_trend", "model_res"}
    rest, trend = decompose(x, 5)
    torch.testing.assert_close(two(x), two.model_trend(trend) + two.model_res(rest))


def test_what_cannot_be_is_refused():
    with pytest.raises(UserError, match="fit into the look-back"):
        patchtst(patch_len=14)
    with pytest.raises(UserError, match="a head needs a channel"):
        patchtst(n_heads=9)
