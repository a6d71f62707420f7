import pytest
import torch

from polymamba.domains.timeseries.models.timemachine import TimeMachine

SMALL = {"lookback": 12, "horizon": 5, "variables": 3, "n1": 10, "n2": 6, "d_state": 4}


def timemachine(seed=0, **options):
    torch.manual_seed(seed)
    return TimeMachine(**{**SMALL, **options}).double().eval()


def window(batch=2, seed=1):
    return torch.randn(batch, 12, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_matches_the_original_model(golden):
    model = golden.fill(TimeMachine(96, 96, 7))
    with torch.no_grad():
        result = golden.compare("ts_timemachine", model(golden.seeded(4, 96, 7)), model)
    assert max(result["errors"]) < 1e-5
    assert not result["missing"]
    assert not result["extra"]
    assert not result["shapes"]
    assert result["parameters"][0] == result["parameters"][1]


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("revin", [False, True])
def test_channel_mixing_against_its_formula(residual, revin):
    """Four Mambas with the variables as tokens, of n2, n2, n1 and n1 channels."""
    model, x = timemachine(channel_independent=False, residual=residual, revin=revin), window()
    assert [model.get_submodule(f"mamba{i}").d_model for i in (1, 2, 3, 4)] == [6, 6, 10, 10]
    if revin:
        with torch.no_grad():
            model.revin_layer.affine_weight.mul_(2), model.revin_layer.affine_bias.add_(0.5)
    mean, spread = x.mean(1, keepdim=True), (x.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt()
    normal = (x - mean) / spread
    if revin:
        normal = normal * 2 + 0.5
    a = model.lin1(normal.transpose(1, 2))
    outer = model.mamba3(a)[0] + model.mamba4(a)[0]
    b = model.lin2(a)
    inner = model.mamba1(b)[0] + model.mamba2(b)[0]
    c = model.lin3(inner + b) + a if residual else model.lin3(inner)
    y = model.lin4(torch.cat([c, outer], 2)).transpose(1, 2)
    if revin:
        y = (y - 0.5) / 2
    torch.testing.assert_close(model(x), y * spread + mean)


def test_channel_independence():
    model, x = timemachine(), window()
    other = x.clone()
    other[..., 1] = window(seed=5)[..., 1]
    torch.testing.assert_close(model(other)[..., [0, 2]], model(x)[..., [0, 2]])
    mixing = timemachine(channel_independent=False)
    assert not torch.allclose(mixing(other)[..., 2], mixing(x)[..., 2])


def test_features():
    model = timemachine()
    assert model.features(window()).shape == (2, 3, 20)
