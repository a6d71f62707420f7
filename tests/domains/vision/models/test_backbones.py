"""What timm and its users rely on, of every hierarchical model that is registered."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from timm.layers import Attention
from timm.optim import param_groups_layer_decay
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from polymamba.core.errors import UserError
from polymamba.core.mixers import Mamba
from polymamba.core.scans.draw import draw_stages
from polymamba.core.stages import grids_of
from polymamba.domains.vision.models.backbone import Hierarchical
from polymamba.domains.vision.models.registration import default_cfgs

MICRO = [
    name for name in sorted(default_cfgs) if name.endswith("_micro") and not name.startswith(("vim_", "videomamba_"))
]
OF_PATCHES = ("plainmamba_micro", "localvim_micro")


def made(name: str, seed: int = 0, **options):
    torch.manual_seed(seed)
    usual = {"img_size": (20, 27), "num_classes": 5, "in_chans": 2} | ({"patch_size": 4} if name in OF_PATCHES else {})
    return timm.create_model(name, **{**usual, **options})


MADE = {name: made(name) for name in MICRO}
STAGED = [name for name, model in MADE.items() if isinstance(model, Hierarchical)]


def image(batch: int = 2, size=(20, 27), seed: int = 1):
    return torch.randn(batch, 2, *size, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def model(name):
    return copy.deepcopy(MADE[name])


@pytest.mark.parametrize("name", STAGED)
def test_heads(name, model):
    model.eval()
    x = image()
    features = model.forward_features(x)
    width = model.num_features
    assert features.shape == (2, *model.grids[-1].sizes, width)
    assert model(x).shape == (2, 5)
    torch.testing.assert_close(model(x), model.forward_head(features))
    pooled = getattr(model, "ln2", nn.Identity())(features.mean((1, 2)))
    torch.testing.assert_close(model.forward_head(features, pre_logits=True), pooled)
    torch.testing.assert_close(model.get_classifier()(pooled), model(x))
    model.reset_classifier(3)
    assert model(x).shape == (2, 3)
    model.reset_classifier(0, "")
    torch.testing.assert_close(model(x), features)
    with pytest.raises(UserError, match="global_pool"):
        model.reset_classifier(3, "max")


@pytest.mark.parametrize("name", STAGED)
def test_other_sizes_than_it_was_made_for(name, model):
    model.eval()
    grids = grids_of(model)
    for size in ((20, 27), (32, 32), (9, 14)):
        _, maps = model.forward_intermediates(image(1, size))
        expected = [tuple(-(-side // reduction) for side in size) for reduction in model.reductions]
        assert [tuple(each.shape[2:]) for each in maps] == expected
        if size == (20, 27):
            assert [grid.sizes for grid in grids] == expected
    assert draw_stages(model.scan.layer(0), grids).axes
    assert model(image(0)).shape == (0, 5)


@pytest.mark.parametrize("name", STAGED)
def test_features_of_stages(name, model):
    model.eval()
    x, widths = image(), [each["num_chs"] for each in model.feature_info]
    y, maps = model.forward_intermediates(x)
    torch.testing.assert_close(y, model.forward_features(x))
    assert [each.shape[1] for each in maps] == widths
    [last] = model.forward_intermediates(x, [len(widths) - 1], norm=True, output_fmt="NHWC", intermediates_only=True)
    torch.testing.assert_close(last, y)
    first, found = model.forward_intermediates(x, [0], stop_early=True)
    torch.testing.assert_close(found[0], maps[0])
    torch.testing.assert_close(first, y if len(widths) == 1 else maps[0].permute(0, 2, 3, 1))
    getter = made(name, features_only=True, out_indices=tuple(range(len(widths)))[:2]).eval()
    for one, other in zip(getter(x), maps, strict=False):
        torch.testing.assert_close(one, other)
    assert getter.feature_info.channels() == widths[:2]
    assert model.prune_intermediate_layers([0]) == [0]
    if len(widths) > 1:  # and there is no norm for so few channels
        torch.testing.assert_close(model(x).permute(0, 3, 1, 2), maps[0])
    with pytest.raises(UserError, match="output_fmt"):
        model.forward_intermediates(x, output_fmt="NLC")


@pytest.mark.parametrize("name", STAGED)
def test_checkpointing_changes_nothing_and_everything_learns(name, model):
    model.train()
    other, x = copy.deepcopy(model), image()
    other.set_grad_checkpointing()
    for each in (model, other):
        torch.manual_seed(3)
        each(x).square().sum().backward()
    for (key, one), (_, two) in zip(model.named_parameters(), other.named_parameters(), strict=True):
        assert one.grad is not None, key
        torch.testing.assert_close(one.grad, two.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", STAGED)
def test_groups_of_parameters(name, model):
    spared = model.no_weight_decay()
    for key, each in model.named_parameters():
        if key.rpartition(".")[2] in ("A_logs", "A_log", "Ds", "D", "dt_projs_bias", "direction_Bs", "pos_embed"):
            assert key in spared
        elif each.dim() > 1 and ".op." not in key and "mixer" not in key:
            assert key not in spared
    groups = param_groups_layer_decay(model, 0.05, model.no_weight_decay(), layer_decay=0.5)
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    assert len({group["lr_scale"] for group in groups}) > len(model.stages)


@pytest.mark.parametrize("name", STAGED)
def test_the_configuration_names_its_layers(name, model):
    config = model.pretrained_cfg
    assert isinstance(model.get_submodule(config["first_conv"]), nn.Conv2d)
    assert isinstance(model.get_submodule(config["classifier"]), nn.Linear)


@pytest.mark.parametrize("name", STAGED)
def test_costs_are_those_that_pytorch_counts_and_the_scans(name, model):
    """Of an image whose sides divide evenly."""
    model = made(name, img_size=32)
    model.eval()
    scans = []

    def note(mixer, arguments, result):
        paths = 9 * mixer._visits(arguments[1])[1] * mixer.d_inner * mixer.d_state
        scans.append(paths * arguments[0].shape[0])

    def note_attention(layer, arguments, result):  # which PyTorch does not count on a CPU
        windows, tokens, channels = arguments[0].shape
        scans.append(4 * windows * tokens * tokens * channels)

    for module in model.modules():
        if isinstance(module, Mamba):
            module.register_forward_hook(note)
        elif isinstance(module, Attention):
            module.register_forward_hook(note_attention)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(image(1, (32, 32)))
    assert model.flops(1) == pytest.approx(counter.get_total_flops() + sum(scans), rel=1e-3)
    assert model.flops(3) == 3 * model.flops(1)
