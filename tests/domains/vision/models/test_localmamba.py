"""LocalVim and LocalVMamba against their originals, with the directions that these were recorded with."""

import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.domains.vision.models import localvim, localvmamba
from polymamba.domains.vision.models.localmamba import scans_of

VIM = (
    ["h", "v_flip", "w7", "w7_flip"],
    ["h_flip", "w2_flip", "w7", "w7_flip"],
    ["h", "h_flip", "v", "w7"],
    ["h", "v", "w2", "w2_flip"],
)
VMAMBA = [
    ["h", "h_flip", "w7", "w7_flip"],
    ["h_flip", "v", "w2", "w7_flip"],
    ["h", "v_flip", "w2_flip", "w7"],
    ["v", "v_flip", "w2", "w7_flip"],
    ["h_flip", "v", "w7", "w7_flip"],
]


def test_localvim_matches_the_original(golden):
    model, weights = (
        localvim.LocalVim(depth=4, directions=VIM, num_classes=10).eval(),
        golden.weights("localvim_tiny_depth4"),
    )
    model.load_state_dict(localvim.checkpoint_filter_fn(weights, model))
    with torch.no_grad():
        features = model.forward_features(golden.seeded(2, 3, 224, 224))
        answers = [model.forward_head(features), model.forward_head(features, pre_logits=True)]
    assert max(golden.compare("localvim_tiny_depth4", answers)["errors"]) < 1e-5
    assert sum(p.numel() for p in model.parameters()) == 1_710_538
    assert len(model.state_dict()) == len(weights) - 2  # tables of sines that are computed here


def test_localvmamba_matches_the_original(golden):
    """On grids of 16 to 2 tokens a side, all of which a window of 7 fills up."""
    options = {"depths": (1, 1, 2, 1), "directions": VMAMBA, "num_classes": 10, "stride": 4}
    model = localvmamba.LocalVMamba(64, compat="published", **options).eval()
    weights = golden.weights("localvmamba_shallow_64")
    model.load_state_dict(localvmamba.checkpoint_filter_fn({"state_dict": weights}, model))
    x, maps = golden.seeded(2, 3, 64, 64), []
    with torch.no_grad():
        answers, x = [model(x)], model.patch_embed(x)
        for stage in model.layers:
            maps.append(x.mean((1, 2)))
            x = stage.downsample(stage(x))
        found = golden.compare("localvmamba_shallow_64", [*answers, *maps, x.mean((1, 2))])
    assert len(found["errors"]) == 6
    assert max(found["errors"]) < 1e-5
    assert sum(p.numel() for p in model.parameters()) == 9_802_738
    assert len(model.state_dict()) == len(weights)


@pytest.mark.parametrize("module", [localvim, localvmamba])
def test_directions_a_layer(module):
    describe = {"image_size": [8, 8], "channels": 1, "num_classes": 10, "model_size": "micro"}
    layers = sum(module.SIZES["micro"].get("depths", (module.SIZES["micro"].get("depth", 0),)))
    model = module.build(describe, directions=[["h", "v", "w2", "w2_flip"]] * layers)
    assert model(torch.randn(2, 1, 8, 8)).shape == (2, 10)
    mixer = model.layers[0].blocks[0].op
    assert mixer.paths == 4
    assert "column" in mixer.scan.name
    with pytest.raises(UserError, match="its directions"):
        module.build(describe, directions=[["h"]] * (layers + 1))
    with pytest.raises(UserError, match="direction"):
        module.build(describe, directions=[["diagonal"]] * layers)


def test_names_of_directions():
    both = scans_of([["v_flip", "w7"]], "raster", 1)[0].order((2, 3))
    assert both[0].tolist() == [5, 2, 4, 1, 3, 0]
    assert both[1].tolist() == list(range(6))


def test_the_stream_turns_as_complex_numbers_do():
    x = torch.randn(1, 3, 2, 8, dtype=torch.float64)
    turned = localvim.rotated(x)
    pairs = torch.view_as_complex(x.unflatten(-1, (4, 2)))
    rate = torch.tensor([1.0, 0.01], dtype=torch.float64)
    for row in range(3):
        for column in range(2):
            angle = torch.cat([row * rate, column * rate])
            expected = torch.view_as_real(pairs[0, row, column] * torch.polar(torch.ones_like(angle), angle)).flatten()
            torch.testing.assert_close(turned[0, row, column], expected, rtol=1e-5, atol=1e-6)
