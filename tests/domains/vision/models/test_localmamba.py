"""LocalVim and LocalVMamba against their originals, with the directions that these were recorded with."""

import pytest
import timm
import torch
from torch.nn import functional as F

from polymamba.core.errors import UserError
from polymamba.domains.vision.models import localvim, localvmamba
from polymamba.domains.vision.models.localmamba import LocalMixer, scans_of

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


def by_hand(x, directions, layer, height, width):
    """LocalVim's mixer as published, in loops: maps are filled up with zeros, columns put back as if of the transposed map."""
    inner, gate = F.linear(x, layer.in_proj.weight).chunk(2, -1)
    total = 0
    for path, direction in enumerate(directions):
        side = int(direction[1]) if direction.startswith("w") else 1
        rows, columns = (-(-size // side) * side for size in (height, width))
        places = [(h, w) for h in range(rows) for w in range(columns)]
        if direction.startswith("v"):
            places = sorted(places, key=lambda place: place[::-1])
        elif direction.startswith("w"):
            places = sorted(places, key=lambda p: (p[0] // side, p[1] // side, p[0] % side, p[1] % side))
        places = places[::-1] if direction.endswith("flip") else places
        token = [h * width + w if h < height and w < width else None for h, w in places]
        zero = torch.zeros_like(inner[:, 0])
        u, z = (torch.stack([zero if t is None else each[:, t] for t in token], 1) for each in (inner, gate))
        conv = getattr(layer, f"conv1d_{path}")
        u = F.silu(F.conv1d(F.pad(u.mT, (3, 0)), conv.weight, conv.bias, groups=u.shape[2])).mT
        sizes = [layer.dt_rank, layer.d_state, layer.d_state]
        step, B, C = getattr(layer, f"x_proj_{path}")(u).split(sizes, -1)
        delta, A = F.softplus(getattr(layer, f"dt_proj_{path}")(step)), -getattr(layer, f"A_{path}_log").exp()
        state, said = 0, []
        for t in range(u.shape[1]):
            state = (delta[:, t, :, None] * A).exp() * state + (delta[:, t] * u[:, t])[..., None] * B[:, t, None]
            said.append((state * C[:, t, None]).sum(-1) + getattr(layer, f"D_{path}") * u[:, t])
        y = torch.stack(said, 1) * F.silu(z)
        if direction.startswith("v"):
            y = y.flip(1) if direction.endswith("flip") else y
            y = y.unflatten(1, (height, width)).transpose(1, 2).flatten(1, 2)
        else:
            step_of = {t: step for step, t in enumerate(token) if t is not None}
            y = y[:, [step_of[t] for t in range(height * width)]]
        total = total + layer.attn(y)
    return layer.out_proj(total)


@pytest.mark.parametrize("size", [(3, 5), (4, 4), (2, 8)])
@pytest.mark.parametrize("directions", [("h", "v_flip", "w2", "w2_flip"), ("v", "w7", "w7_flip", "h_flip")])
def test_the_published_form_of_odd_and_long_maps(size, directions):
    torch.manual_seed(0)
    [scan] = scans_of([directions], "raster", 1)
    layer = LocalMixer(6, scan, padded=True, d_state=3, dtype=torch.float64)
    x = torch.randn(2, size[0] * size[1], 6, dtype=torch.float64)
    expected = by_hand(x, directions, layer, *size)
    torch.testing.assert_close(layer(x, size)[0], expected, rtol=1e-6, atol=1e-9)
    corrected = LocalMixer(6, scan, d_state=3, dtype=torch.float64)
    corrected.load_state_dict(layer.state_dict())
    same = size == (4, 4) and "w7" not in directions
    assert torch.allclose(corrected(x, size)[0], expected) == same


def test_a_class_token_in_the_middle_of_every_path():
    with torch.device("meta"):
        model = timm.create_model("localvim_tiny_midcls")
    assert sum(each.numel() for each in model.parameters()) == 7_994_536
    assert model.grid.extra == (98,)
    assert model.layers[0].mixer.scan.name.startswith("raster+column_reverse+local")


def test_rotary_positions_are_stretched():
    x = torch.randn(1, 4, 2, 8, dtype=torch.float64)
    wide = torch.zeros(1, 7, 7, 8, dtype=torch.float64)
    wide[:, 2, 0], wide[:, 4, 0] = x[:, 1, 0], x[:, 2, 0]
    found, expected = localvim.rotated(x, side=8), localvim.rotated(wide)
    torch.testing.assert_close(found[:, [1, 2], 0], expected[:, [2, 4], 0])


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
