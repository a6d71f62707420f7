"""MambaVision against its original, on maps that its windows fill up."""

import pytest
import torch
from torch.nn import functional as F

from polymamba.domains.vision.models.mambavision import HalfMixed, MambaVision, build, checkpoint_filter_fn


def test_matches_the_original(golden):
    model = MambaVision(depths=(1, 1, 3, 2), num_classes=10, layer_scale=1e-5, compat="published").eval()
    weights = golden.weights("mambavision_shallow_layerscale_160x192")
    model.load_state_dict(checkpoint_filter_fn({"state_dict": weights}, model))
    x, maps = golden.seeded(2, 3, 160, 192), []
    with torch.no_grad():
        features = model.forward_features(x)
        answers, x = [model.forward_head(features), model.forward_head(features, pre_logits=True)], model._embed(x)
        for stage in model.levels:
            maps.append(x.mean((1, 2)))
            x = stage.downsample(stage(x))
        found = golden.compare("mambavision_shallow_layerscale_160x192", [*answers, *maps, x.mean((1, 2))])
    assert len(found["errors"]) == 7
    assert max(found["errors"]) < 1e-5
    assert sum(p.numel() for p in model.parameters()) == 15_403_818
    assert len(model.state_dict()) == len(weights)


@pytest.mark.parametrize("compat", [None, "published"])
def test_the_mixer_is_its_formula(compat):
    torch.manual_seed(0)
    layer = HalfMixed(16, d_state=3, compat=compat, dtype=torch.float64)
    x = torch.randn(2, 6, 16, dtype=torch.float64)
    u, z = (each.mT for each in layer.in_proj(x).chunk(2, -1))
    u, z = (
        F.silu(F.conv1d(each, conv.weight, padding=1, groups=8)).mT
        for each, conv in ((u, layer.conv1d_x), (z, layer.conv1d_z))
    )
    step, B, C = layer.x_proj(u).split([layer.dt_rank, 3, 3], -1)
    delta = F.softplus(layer.dt_proj(step) + (layer.dt_proj.bias if compat else 0))
    state, said = 0, []
    for t in range(6):
        state = (delta[:, t, :, None] * -layer.A_log.exp()).exp() * state + (delta[:, t] * u[:, t])[..., None] * B[
            :, t, None
        ]
        said.append((state * C[:, t, None]).sum(-1) + layer.D * u[:, t])
    expected = layer.out_proj(torch.cat([torch.stack(said, 1), z], -1))
    torch.testing.assert_close(layer(x, (2, 3))[0], expected, rtol=1e-6, atol=1e-8)


def test_windows_do_not_see_one_another_and_none_is_larger_than_the_map():
    torch.manual_seed(0)
    options = {"depths": (1, 2), "num_heads": (1, 2), "window_size": (2, 2), "dim": 8, "in_dim": 8, "num_classes": 3}
    model = MambaVision(16, stride=2, **options).eval()
    stage = model.levels[1]
    x = torch.randn(1, 4, 4, 16)
    y = stage(x)
    other = x.clone()
    other[:, :2, :2] += 1
    changed = (stage(other) - y).abs().sum(-1)[0] > 1e-6
    assert changed[:2, :2].all()
    assert changed.sum() == 4
    small = build({"image_size": [8, 8], "channels": 1, "num_classes": 10, "model_size": "micro"}, scan="cross")
    assert small.levels[1].window == 2
    assert small(torch.randn(1, 1, 8, 8)).shape == (1, 10)
