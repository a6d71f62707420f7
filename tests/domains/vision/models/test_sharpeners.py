"""Pan-Mamba and FusionMamba against their published code's wiring, written out over named weights; sizes, scans, names."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from polymamba.core.errors import UserError
from polymamba.domains.vision.models.fusionmamba import FusionMamba
from polymamba.domains.vision.models.panmamba import PanMamba, checkpoint_filter_fn

MICRO = {"width": 6, "depth": 2, "swaps": 2, "fusions": 2}


def made(kind, **options):
    torch.manual_seed(0)
    model = kind(3, **options).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def pair(height: int, width: int, ratio: int = 4, bands: int = 3):
    random = torch.Generator().manual_seed(1)
    ms = torch.rand(2, bands, height, width, generator=random, dtype=torch.float64)
    return ms, torch.rand(2, 1, ratio * height, ratio * width, generator=random, dtype=torch.float64)


class Named:
    """Layers by the names of a state dict; mixers are the model's own, which are held to their formulas elsewhere."""

    def __init__(self, model):
        self.model, self.state = model, model.state_dict()

    def conv(self, name, x, **options):
        weight = self.state[f"{name}.weight"]
        options = {"padding": weight.shape[-1] // 2, **options}
        return F.conv2d(x, weight, self.state.get(f"{name}.bias"), **options)

    def linear(self, name, x):
        return F.linear(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def norm(self, name, x):
        return F.layer_norm(x, x.shape[-1:], self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def mixer(self, name, *inputs, grid):
        return self.model.get_submodule(name)(torch.cat(inputs, 1), grid)[0]


def published_panmamba(model, ms, pan):
    of, grid = Named(model), tuple(pan.shape[2:])

    def as_map(x):
        return x.transpose(1, 2).reshape(len(x), -1, *grid)

    def tokens(name, x):
        return of.conv(f"{name}.proj", x).flatten(2).transpose(1, 2)

    def encoder(name, x):
        x = of.conv(f"{name}.0", x)
        for block in (1, 2, 3):
            y = F.leaky_relu(of.conv(f"{name}.{block}.conv_1", x), 0.2)
            first, second = y.chunk(2, 1)
            weights = (of.state[f"{name}.{block}.norm.{each}"] for each in ("weight", "bias"))
            first = F.instance_norm(first, None, None, *weights)
            x = x + F.leaky_relu(of.conv(f"{name}.{block}.conv_2", torch.cat([first, second], 1)), 0.2)
        return x

    large = F.interpolate(ms, scale_factor=4)
    ms, pan = tokens("ms_to_token", encoder("ms_encoder", large)), tokens("pan_to_token", encoder("pan_encoder", pan))
    more, other = 0, 0
    for layer in range(2):
        more, other = ms + more, pan + other
        ms, pan = (
            of.mixer(f"{name}.{layer}.encoder", of.norm(f"{name}.{layer}.norm.body", x), grid=grid)
            for name, x in (("ms_feature_extraction", more), ("pan_feature_extraction", other))
        )
    for swap in ("swap_mamba1", "swap_mamba2"):
        more, other = ms + more, pan + other
        ms, pan = of.norm(f"{swap}.norm1.body", more), of.norm(f"{swap}.norm2.body", other)
        half = ms.shape[2] // 2
        swapped = torch.cat([pan[:, :, :half], ms[:, :, half:]], 2), torch.cat([ms[:, :, :half], pan[:, :, half:]], 2)
        ms = of.mixer(f"{swap}.msencoder", swapped[0], grid=grid)
        pan = of.mixer(f"{swap}.panencoder", swapped[1], grid=grid)
    ms, pan = as_map(ms), as_map(pan)
    ms = of.conv("shallow_fusion1", torch.cat([ms, pan], 1)) + ms
    pan = of.conv("shallow_fusion2", torch.cat([pan, ms], 1)) + pan
    ms, pan, more = tokens("ms_to_token", ms), tokens("pan_to_token", pan), 0
    for fusion in ("deep_fusion1", "deep_fusion2"):
        more, other = ms + more, pan
        ms = of.norm(f"{fusion}.norm1.body", of.norm(f"{fusion}.norm1.body", more))
        other = of.norm(f"{fusion}.norm2.body", of.norm(f"{fusion}.norm2.body", other))
        found = as_map(of.mixer(f"{fusion}.cross_mamba", ms, other, grid=grid))
        found = of.conv(f"{fusion}.dwconv", found, groups=found.shape[1]) + found
        ms = found.flatten(2).transpose(1, 2)
    x = of.conv("output.conv_in", as_map(ms))
    y = of.conv("output.process.0.process.2", F.relu(of.conv("output.process.0.process.0", x)))
    z = F.relu(of.conv("output.process.0.conv_du.0", F.adaptive_avg_pool2d(y, 1)))
    x = of.conv("output.process.0.conv_du.2", z).sigmoid() * y + x
    return of.conv("output.conv_last", x) + large


def published_fusionmamba(model, ms, pan):
    of = Named(model)

    def fused(name, pan, ms):
        grid = tuple(pan.shape[2:])
        pan, ms = (x.flatten(2).transpose(1, 2) for x in (pan, ms))
        alone = []
        for branch, x in (("spa", pan), ("spe", ms)):
            layer = f"{name}.{branch}_mamba_layers.0"
            alone.append(of.mixer(f"{layer}.block", of.norm(f"{layer}.norm", x), grid=grid) + x)
        crossed = []
        for branch, x, guide in (("spa", *alone), ("spe", *alone[::-1])):
            layer = f"{name}.{branch}_cross_mamba"
            both = of.norm(f"{layer}.norm0", x), of.norm(f"{layer}.norm1", guide)
            crossed.append(of.mixer(f"{layer}.block", *both, grid=grid) + x)
        said = of.linear(f"{name}.out_proj", sum(crossed) / 2)
        return tuple(x.transpose(1, 2).reshape(len(x), -1, *grid) for x in (alone[0], alone[1] + said))

    def down(name, x):
        return F.leaky_relu(of.conv(f"{name}.sample.down.0", x, stride=2, padding=0))

    def up(name, x, before):
        weight, bias = (of.state[f"{name}.sample.up.0.{each}"] for each in ("weight", "bias"))
        x = F.leaky_relu(F.conv_transpose2d(x, weight, bias, stride=2)) + before
        return F.leaky_relu(of.conv(f"{name}.sample.conv.0", x))

    large = F.pixel_shuffle(of.conv("upsample.upsamle.0", ms), 4)
    pan, ms = F.leaky_relu(of.conv("raise_pan_dim.0", pan)), F.leaky_relu(of.conv("raise_ms_dim.0", large))
    first = fused("stage0.fm", pan, ms)
    second = fused("stage1.fm", *(down("stage0", x) for x in first))
    third = fused("stage2.fm", *(down("stage1", x) for x in second))
    fourth = fused("stage3.fm", *(up("stage2", x, before) for x, before in zip(third, second, strict=True)))
    last = fused("stage4", *(up("stage3", x, before) for x, before in zip(fourth, first, strict=True)))
    return of.conv("to_hrms.2", F.leaky_relu(of.conv("to_hrms.0", last[1]))) + large


@pytest.mark.parametrize("sizes", [(2, 3), (4, 1)])
def test_panmamba_is_wired_as_published(sizes):
    model = made(PanMamba, **MICRO, compat="published")
    torch.testing.assert_close(model(*pair(*sizes)), published_panmamba(model, *pair(*sizes)))
    other = made(PanMamba, **MICRO)
    assert other.state_dict().keys() == model.state_dict().keys()
    assert not torch.allclose(other(*pair(*sizes)), model(*pair(*sizes)))


@pytest.mark.parametrize("sizes", [(2, 3), (4, 1)])
def test_fusionmamba_is_wired_as_published(sizes):
    model = made(FusionMamba, dim=4)
    torch.testing.assert_close(model(*pair(*sizes)), published_fusionmamba(model, *pair(*sizes)))


def shapes_of_mamba(width: int, inner: int, states: int, ends: tuple[str, ...]) -> int:
    """Parameters of a published mixer: by path conv1d of 4 taps, x_proj, dt_proj, A_log and D; in_proj and out_proj."""
    rank = -(-width // 16)
    path = inner * (4 + 1) + inner * (rank + 2 * states) + inner * (rank + 1) + inner * states + inner
    return 3 * width * inner + len(ends) * path


def test_published_parameter_counts():
    """Counted from the layers' shapes in the published code (option.yml: 32 filters, 4 bands; train.py: 32 channels, 8 bands)."""
    conv, norm = 32 * 32 * 9 + 32, 2 * 32
    alone = shapes_of_mamba(32, 64, 16, ("",)) + norm
    swap = 2 * alone
    crossing = shapes_of_mamba(32, 64, 16, ("", "_b")) + 2 * 32 * 64 + 2 * norm + 32 * 10
    block = 2 * conv + 2 * 16
    encoders = (9 * 32 + 32) + (4 * 9 * 32 + 32) + 6 * block
    output = 3 * conv + (32 * 8 + 8) + (8 * 32 + 32) + 32 * 4 * 9 + 4
    tokens = 2 * (32 * 32 + 32)
    total = encoders + tokens + 2 * (conv + 32 * 32 * 9) + 16 * alone + 2 * swap + 5 * crossing + output
    with torch.device("meta"):
        found = sum(each.numel() for each in PanMamba(4).parameters())
        fusion = sum(each.numel() for each in FusionMamba(8).parameters())
    # Of 478,444 that are published, those of six `identity` and two `norm` are never used.
    assert found == total == 478_444 - 6 * (32 * 32 + 32) - 2 * 32

    def fused(dim: int) -> int:
        alone = shapes_of_mamba(dim, dim, 8, ("", "_b", "_c", "_d")) + 4 * dim
        return 2 * alone + 2 * (alone + dim * dim + 2 * dim) + dim * dim + dim

    stages = 2 * fused(32) + 2 * fused(64) + fused(128)
    downs = (4 * 32 * 64 + 64) + (4 * 64 * 128 + 128)
    ups = (4 * 128 * 64 + 64 + 9 * 64 * 64 + 64) + (4 * 64 * 32 + 32 + 9 * 32 * 32 + 32)
    outer = 9 * 8 * 128 + (9 * 32 + 32) + (8 * 9 * 32 + 32) + conv + (32 * 8 * 9 + 8)
    assert fusion == stages + downs + ups + outer == 769_864


def test_published_names_that_are_never_used_are_left_out():
    model = PanMamba(4, **MICRO)
    state = {f"module.{name}": value for name, value in model.state_dict().items()}
    unused = ["pan_encoder.1.identity.weight", "ms_to_token.norm.body.weight", "pan_to_token.norm.body.weight"]
    state |= {f"module.{name}": torch.zeros(1) for name in unused}
    found = checkpoint_filter_fn({"state_dict": state}, model)
    model.load_state_dict(found)
    assert found.keys() == model.state_dict().keys()


@pytest.mark.parametrize(("kind", "options"), [(PanMamba, MICRO), (FusionMamba, {"dim": 4})])
def test_any_size_and_ratio_and_what_is_refused(kind, options):
    model = made(kind, ratio=3, **options)
    assert model(*pair(3, 1, 3)).shape == (2, 3, 9, 3)
    with pytest.raises(UserError, match="do not fit the model"):
        model(*pair(3, 2, 2))
    with pytest.raises(UserError, match="do not fit the model"):
        model(*pair(2, 2, 3, bands=4))


@pytest.mark.parametrize(
    ("kind", "options", "scan"),
    [
        (PanMamba, MICRO, {"scan": "zigzag", "crossing": "interleaved"}),
        (PanMamba, MICRO, {"scan": "cross", "crossing": "raster"}),
        (FusionMamba, {"dim": 4}, {"scan": "skip"}),
        (FusionMamba, {"dim": 4}, {"scan": "hilbert"}),
    ],
)
def test_other_scans(kind, options, scan):
    model, given = made(kind, **options, **scan), pair(2, 3)
    found = model(*given)
    assert found.shape == (2, 3, 8, 12)
    assert not torch.allclose(found, made(kind, **options)(*given))


def test_a_scan_whose_layers_take_turns_is_refused_where_they_do_not():
    with pytest.raises(UserError, match="walks the same paths"):
        FusionMamba(3, dim=4, scan="zigzag")
