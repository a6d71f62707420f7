"""What timm and its users rely on, of every model that is registered: the small ones run, the others are built without memory."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from timm.layers import Attention
from timm.models._manipulate import group_parameters
from timm.optim import param_groups_layer_decay
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from polymamba.core.errors import UserError
from polymamba.core.mixers import Mamba
from polymamba.core.scans.draw import draw_stages
from polymamba.core.stages import grids_of
from polymamba.domains.vision.models.backbone import Hierarchical
from polymamba.domains.vision.models.registration import FILTERS, default_cfgs
from polymamba.domains.vision.models.vssd import GlobalAttention

ALL = sorted(default_cfgs)
MICRO = [name for name in ALL if name.endswith("_micro")]
# One of each paper's sizes: what their configurations name is the model's.
PAPERS = {name.split("_")[0]: name for name in ALL if name not in MICRO and "base" not in name and "large" not in name}
OF_PATCHES = ("plainmamba_micro", "localvim_micro", "vim_micro", "videomamba_micro")
SIZE = (20, 28)


def made(name: str, seed: int = 0, **options):
    torch.manual_seed(seed)
    usual = {"img_size": SIZE, "num_classes": 5, "in_chans": 2} | ({"patch_size": 4} if name in OF_PATCHES else {})
    return timm.create_model(name, **{**usual, **options})


MADE = {name: made(name) for name in MICRO}
STAGED = [name for name, model in MADE.items() if isinstance(model, Hierarchical)]


def image(batch: int = 2, size=SIZE, channels: int = 2, seed: int = 1):
    return torch.randn(batch, channels, *size, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def model(name):
    return copy.deepcopy(MADE[name])


@pytest.mark.parametrize("name", MICRO)
def test_heads(name, model):
    model.eval()
    x = image()
    features = model.forward_features(x)
    assert features.shape[-1] == model.num_features == model.head_hidden_size
    if name in STAGED:
        assert features.shape[1:3] == model.grids[-1].sizes
    assert model(x).shape == (2, 5)
    torch.testing.assert_close(model(x), model.forward_head(features))
    pooled = model.forward_head(features, pre_logits=True)
    assert pooled.shape == (2, model.num_features)
    torch.testing.assert_close(model.get_classifier()(pooled), model(x))
    model.reset_classifier(3)
    assert model.num_classes == 3
    assert model(x).shape == (2, 3)
    model.reset_classifier(0)
    torch.testing.assert_close(model(x), pooled)
    model.reset_classifier(0, "")
    torch.testing.assert_close(model(x), features)
    with pytest.raises(UserError, match="global_pool"):
        model.reset_classifier(3, "max")


@pytest.mark.parametrize("name", MICRO)
def test_the_mean_is_what_the_head_reads(name, model):
    if name == "groupmamba_micro":
        pytest.skip("a token that begins as the mean goes through a block of its own")
    model.eval()
    features = model.forward_features(image())
    mean = getattr(model, "ln2", nn.Identity())(features.flatten(1, -2).mean(1))
    if model.global_pool == "avg":
        torch.testing.assert_close(model.forward_head(features, pre_logits=True), mean)
    model.reset_classifier(0, "avg")
    if not getattr(model, "grid", grids_of(model)[0]).extra:
        torch.testing.assert_close(model.forward_head(features), mean)


@pytest.mark.parametrize("name", MICRO)
@pytest.mark.parametrize("channels", [1, 5])
def test_any_channels_and_sizes(name, channels):
    model = made(name, in_chans=channels, dynamic_img_size=True).eval()
    grids = grids_of(model)
    for size in (SIZE, (32, 32), (10, 14)):
        _, maps = model.forward_intermediates(image(1, size, channels))
        steps = [each["reduction"] for each in model.feature_info]
        expected = [tuple(-(-side // step) for side in size) for step in steps]
        assert [tuple(each.shape[2:]) for each in maps] == expected
        if size == SIZE and name in STAGED:
            assert [grid.sizes for grid in grids] == expected
    assert model(image(0, channels=channels)).shape == (0, 5)
    if hasattr(model, "scan"):
        assert draw_stages(model.scan.layer(0), grids).axes


@pytest.mark.parametrize("name", [name for name in MICRO if hasattr(MADE[name], "scan")])
def test_a_scan_that_cannot_walk_the_map_says_so_when_the_model_is_made(name):
    with pytest.raises(UserError, match="no sense on a 2-D grid"):
        made(name, scan="slices")


@pytest.mark.parametrize("name", MICRO)
def test_another_size_says_what_a_model_made_for_it_says(name):
    """Positions are resampled while it runs as its filter resamples saved ones."""
    model = made(name, img_size=24, dynamic_img_size=True).eval()
    other = made(name, seed=1, img_size=(32, 24)).eval()
    with torch.no_grad():
        for each in model.parameters():
            each.add_(0.1 * torch.randn_like(each))
    other.load_state_dict(FILTERS[type(other)](model.state_dict(), other))
    x = image(2, (32, 24))
    torch.testing.assert_close(model(x), other(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["vim_micro", "videomamba_micro"])
def test_a_model_of_one_size_says_so(name, model):
    with pytest.raises(UserError, match="dynamic_img_size"):
        model(image(1, (24, 24)))


def test_videos_of_another_size():
    model = made("videomamba_micro", frames=4, tube=2, dynamic_img_size=True).eval()
    x = torch.randn(2, 2, 4, 24, 36)
    other = made("videomamba_micro", frames=4, tube=2, img_size=(24, 36)).eval()
    assert model(x).shape == other(x).shape == (2, 5)
    with pytest.raises(UserError, match="videos of"):
        model(x[:, :, :2])


@pytest.mark.parametrize("name", MICRO)
def test_features_of_stages(name, model):
    model.eval()
    x, widths = image(), [each["num_chs"] for each in model.feature_info]
    y, maps = model.forward_intermediates(x)
    torch.testing.assert_close(y, model.forward_features(x))
    assert [each.shape[1] for each in maps] == widths
    last_format = "NHWC" if name in STAGED else "NLC"
    options = {"norm": True, "output_fmt": last_format, "intermediates_only": True}
    [last] = model.forward_intermediates(x, [len(widths) - 1], **options)
    if not grids_of(model)[0].extra:
        torch.testing.assert_close(last, y)
    first, found = model.forward_intermediates(x, [0], stop_early=True)
    torch.testing.assert_close(found[0], maps[0])
    if name in STAGED:
        torch.testing.assert_close(first, y if len(widths) == 1 else maps[0].permute(0, 2, 3, 1))
    getter = made(name, features_only=True, out_indices=tuple(range(len(widths)))[:2]).eval()
    for one, other in zip(getter(x), maps, strict=False):
        torch.testing.assert_close(one, other)
    assert getter.feature_info.channels() == widths[:2]
    assert model.prune_intermediate_layers([0]) == [0]
    if len(widths) > 1 and name in STAGED:  # and there is no norm for so few channels
        torch.testing.assert_close(model(x).permute(0, 3, 1, 2), maps[0])
    with pytest.raises(UserError, match="output_fmt"):
        model.forward_intermediates(x, output_fmt="NLHC")


@pytest.mark.parametrize("name", MICRO)
def test_checkpointing_changes_nothing_and_everything_learns(name, model):
    model.train()
    other, x = copy.deepcopy(model), image()
    other.set_grad_checkpointing()
    assert other.grad_checkpointing
    for each in (model, other):
        torch.manual_seed(3)
        each(x).square().sum().backward()
    for (key, one), (_, two) in zip(model.named_parameters(), other.named_parameters(), strict=True):
        assert one.grad is not None, key
        torch.testing.assert_close(one.grad, two.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", MICRO)
def test_stochastic_depth_and_dropout(name):
    model, x = made(name, drop_path_rate=0.5, drop_rate=0.5), image(8)
    model.train()
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))
    state = MADE[name].state_dict()
    assert model.state_dict().keys() == state.keys()


@pytest.mark.parametrize("name", MICRO)
def test_groups_of_parameters(name, model):
    spared = model.no_weight_decay()
    kept = ("A_logs", "A_log", "A_b_log", "Ds", "D", "D_b", "dt_projs_bias", "direction_Bs", "pos_embed", "cls_token")
    for key, each in model.named_parameters():
        if key.rpartition(".")[2] in kept:
            assert key in spared
        elif each.dim() > 1 and ".op." not in key and "mixer" not in key:
            assert key not in spared
    groups = param_groups_layer_decay(model, 0.05, model.no_weight_decay(), layer_decay=0.5)
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    depth = len(model.stages) if name in STAGED else len(model.layers)
    assert len({group["lr_scale"] for group in groups}) > depth
    for coarse in (False, True):
        grouped = group_parameters(model, model.group_matcher(coarse))
        assert sorted(key for keys in grouped.values() for key in keys) == sorted(dict(model.named_parameters()))


@pytest.mark.parametrize("name", MICRO)
def test_pretrained_weights_for_other_classes_and_channels(name, tmp_path):
    first = made(name, in_chans=3).eval()
    torch.save({"model": first.state_dict()}, tmp_path / "weights.pth")
    overlay = {"file": str(tmp_path / "weights.pth"), "num_classes": 5}
    second = made(name, 1, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=7, in_chans=1).eval()
    grey = image(2, channels=1)
    torch.testing.assert_close(
        second.forward_features(grey), first.forward_features(grey.expand(-1, 3, -1, -1)), rtol=1e-3, atol=1e-4
    )
    assert second(grey).shape == (2, 7)


@pytest.mark.parametrize("name", [*MICRO, *PAPERS.values()])
def test_a_name_builds_what_its_configuration_says(name):
    with torch.device("meta"):
        model = timm.create_model(name)
    config = model.pretrained_cfg
    assert isinstance(model.get_submodule(config["first_conv"]), nn.Conv2d)
    assert isinstance(model.get_submodule(config["classifier"]), nn.Linear)
    assert model.num_classes == 1000
    assert config["input_size"][1:] == model.img_size
    assert config["origin_url"]
    assert config["paper_ids"].startswith("arXiv:")
    modules = dict(model.named_modules())
    assert all(each["module"] in modules for each in model.feature_info)
    assert name in timm.list_models("*mamba*") + timm.list_models("*vim*") + timm.list_models("vssd*")


@pytest.mark.parametrize("name", STAGED)
def test_costs_are_those_that_pytorch_counts_and_the_scans(name):
    """Of an image whose sides divide evenly."""
    model = made(name, img_size=32)
    model.eval()
    scans = []

    def note(mixer, arguments, result):
        if mixer.d_state == 1 and hasattr(mixer, "conv2d_b1"):
            length = arguments[1][0] * arguments[1][1]
            scans.append(9 * mixer.d_inner * (length + 3 * (length // 4)) * arguments[0].shape[0])
            return
        paths = 9 * mixer._visits(arguments[1])[1] * mixer.d_inner * mixer.d_state
        scans.append(paths * arguments[0].shape[0])

    def note_grouped(mixer, arguments, result):
        for group in mixer.groups:
            scans.append(9 * mixer._visits(arguments[1])[0] * group.d_inner * group.d_state * arguments[0].shape[0])

    def note_attention(layer, arguments, result):  # which PyTorch does not count on a CPU
        windows, tokens, channels = arguments[0].shape
        scans.append(4 * windows * tokens * tokens * channels)

    for module in model.modules():
        if hasattr(module, "groups") and hasattr(module, "skip_scale"):
            module.register_forward_hook(note_grouped)
        elif isinstance(module, Mamba):
            module.register_forward_hook(note)
        elif isinstance(module, Attention | GlobalAttention):
            module.register_forward_hook(note_attention)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(image(1, (32, 32)))
    assert model.flops(1) == pytest.approx(counter.get_total_flops() + sum(scans), rel=1e-3)
    assert model.flops(3) == 3 * model.flops(1)
