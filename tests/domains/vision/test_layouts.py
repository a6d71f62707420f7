"""Weights of every model in their authors' layout: recognised, built from their shapes alone, and the same answers."""

from __future__ import annotations

import re

import pytest
import timm
import torch
from safetensors.torch import save_file

from polymamba.core.errors import UserError
from polymamba.domains.vision.layouts import LAYOUTS, arguments_of, find, module_of
from polymamba.domains.vision.models.fusionmamba import FusionMamba
from polymamba.domains.vision.models.localmamba import searched_directions
from polymamba.domains.vision.models.panmamba import PanMamba
from polymamba.domains.vision.models.registration import FILTERS, default_cfgs
from polymamba.domains.vision.models.vmrnn import VMRNN, VMRNNClassifier
from polymamba.domains.vision.published import is_published, load, read_weights

# What makes a model's own names those of its authors' checkpoints, each a pattern and what stands in its place.
FLAT = ((r"^layers\.0\.blocks\.(\d+)\.", r"layers.\1."),)
RULES = {
    "vmamba": (), "vmamba_first": (
        (r"^patch_embed\.0\.", "patch_embed.proj."), (r"^patch_embed\.2\.", "patch_embed.norm."), (r"\.norm\.", ".ln_1."),
        (r"downsample\.ln_1\.", "downsample.norm."), (r"^patch_embed\.ln_1\.", "patch_embed.norm."),
        (r"\.op\.", ".self_attention."),
        (r"^classifier\.ln_1\.", "norm."), (r"^classifier\.head\.", "head."),
    ),
    "plainmamba": (*FLAT, (r"^head\.", "head.fc."), (r"^(?!head)", "backbone.")),
    "localvim": (*FLAT, (r"\.op\.", ".mixer."), (r"\.A_(\d)_log$", r".A_log_\1")),
    "localvimtoken": ((r"\.A_(\d)_log$", r".A_log_\1"),),
    "localvmamba": (), "msvmamba": (), "vssd": (), "mambavision": (), "vim": (), "videomamba": (), "videomamba_video": (),
    "efficientvmamba": ((r"^", "module.module."),),
    "spatialmamba": ((r"\.norm([12])\.", r".ln_\1."), (r"\.attn\.", ".self_attention.")),
    "mamband": (
        (r"^layers\.0\.blocks\.(\d)\.", r"layers.\1."), (r"^layers\.1\.blocks\.0\.", "layers.4."),
        (r"^layers\.1\.blocks\.1\.", "layers.5."), (r"^layers\.0\.downsample\.", "layers.3.down_sample_layer."),
        (r"^head\.", "head.fc."), (r"^(?!head)", "backbone."),
    ),
    "groupmamba": (
        (r"^layers\.0\.downsample\.before\.", "norm1."), (r"^layers\.0\.downsample\.", "patch_embed2."), (r"^norm\.", "norm2."),
        (r"^patch_embed\.", "patch_embed1."), (r"^layers\.(0)\.blocks\.(\d+)\.", r"block1.\2."),
        (r"^layers\.(1)\.blocks\.(\d+)\.", r"block2.\2."),
    ),
}  # fmt: skip
OPTIONS = {
    "vmamba_first": {"version": "v0", "d_state": 4, "mlp_ratio": 0, "expand": 2}, "plainmamba": {"depthwise_layers": (0,)},
    "mambavision": {"layer_scale": 1e-5}, "groupmamba": {"distilled": True}, "videomamba_video": {"frames": 4, "tube": 2},
    "vim": {"class_token": "middle"},
    "localvimtoken": {"embed_dim": 48, "depth": 3, "d_state": 8, "directions": [["h", "h_flip", "w2", "w2_flip"]] * 3},
}  # fmt: skip
# What shapes cannot tell is as in the published files.
PUBLISHED = {
    name: {"compat": "published"}
    for name in ("plainmamba", "localvim", "mambavision", "localvmamba", "efficientvmamba", "mamband", "spatialmamba")
}
PATCHES = {"plainmamba": 4, "localvim": 4, "vim": 8, "videomamba": 4, "videomamba_video": 4, "mamband": 4}
WRAPPED = {
    "localvim": "state_dict",
    "localvimtoken": "state_dict",
    "localvmamba": "state_dict",
    "efficientvmamba": "state_dict",
    "mambavision": "state_dict",
}
SIZE = 32


def made(name: str):
    torch.manual_seed(0)
    options = {**OPTIONS.get(name, {}), **PUBLISHED.get(name, {})}
    options |= {"patch_size": PATCHES[name]} if name in PATCHES else {"stride": 4}
    plain = name in ("vim", "localvimtoken")
    options |= {"patch_size": 56} if plain else {}
    size = 224 if plain else SIZE
    known = "localvim_tiny_midcls" if name == "localvimtoken" else f"{name.split('_')[0]}_micro"
    model = timm.create_model(known, img_size=size, num_classes=6, **options).eval()
    with torch.no_grad():
        for each in model.parameters():
            each.add_(0.05 * torch.randn_like(each))
    return model


def in_their_layout(name: str, state: dict) -> dict:
    for old, new in RULES[name]:
        state = {re.sub(old, new, key): value for key, value in state.items()}
    if name == "localvim":  # and tables of sines beside the weights
        state["rope.freqs_cos"] = torch.ones(64, 48)
    if name == "spatialmamba":
        one = ("x_proj_weight", "dt_projs_weight", "dt_projs_bias")
        state = {key: value[0] if key.endswith(one) else value for key, value in state.items()}
    if name == "efficientvmamba":  # stages without a list of blocks, a change of layout before those that convolve
        state = {re.sub(r"layers\.1\.blocks\.0\.", "layers.1.1.", key): value for key, value in state.items()}
    return state


@pytest.fixture(params=sorted(RULES))
def published(request, tmp_path):
    """A name, a model with random weights, and a file of them as its authors would have saved it."""
    name, model = request.param, made(request.param)
    weights = in_their_layout(name, model.state_dict())
    path = tmp_path / f"{name}_res32.pth"
    torch.save({WRAPPED.get(name, "model"): weights, "epoch": 3}, path)
    return name, model, path


def answers(model, x):
    with torch.no_grad():
        return model(x)


def picture(name: str, size: int):
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    return x[:, :, None].expand(-1, -1, 4, -1, -1) if name == "videomamba_video" else x


def test_built_from_the_weights_alone(published, tmp_path):
    name, model, path = published
    assert is_published(str(path))
    run = load(path)
    assert type(run.model) is type(model)
    x = picture(name, model.img_size[0])
    if tuple(run.model.img_size) != tuple(model.img_size):  # nothing in them tells the size of images
        assert run.model.takes_any_size
    torch.testing.assert_close(answers(run.model, x), answers(model, x), rtol=1e-4, atol=1e-5)
    assert run.describe["num_classes"] == 6
    own = {key: value.contiguous() for key, value in model.state_dict().items()}
    save_file(own, tmp_path / f"own_{path.stem}.safetensors")
    again = load(tmp_path / f"own_{path.stem}.safetensors")
    torch.testing.assert_close(answers(again.model, x), answers(model, x), rtol=1e-4, atol=1e-5)


def test_a_model_of_grey_images_begins_with_them(published):
    name, model, path = published
    torch.manual_seed(1)
    kind, arguments = arguments_of(in_their_layout(name, model.state_dict()), path)
    other = kind(**{**arguments, "in_chans": 1, "img_size": model.img_size})
    other.load_state_dict(read_weights(path, other))
    x = picture(name, model.img_size[0])[:, :1]
    wide = x.expand(-1, 3, *x.shape[2:])
    torch.testing.assert_close(answers(other.eval(), x), answers(model, wide), rtol=1e-3, atol=1e-4)


def test_every_model_that_names_images_has_a_layout():
    others = {VMRNN, VMRNNClassifier, PanMamba, FusionMamba}  # of videos, and of two images
    assert {each.model for each in LAYOUTS} == set(FILTERS) - others


@pytest.mark.parametrize(
    "name",
    ["vmamba_tiny", "vmamba_base_v0", "plainmamba_l3", "localvmamba_small", "localvim_tiny", "efficientvmamba_base",
     "mambavision_large2", "mambavision_large3", "videomamba_middle_patch16_224", "mamband_small_patch8", "groupmamba_base",
     "vssd_small", "spatialmamba_base", "msvmamba_tiny"],
)  # fmt: skip
@pytest.mark.slow
def test_published_sizes_are_built_again(name):
    with torch.device("meta"):
        model = timm.create_model(name)
    kind, arguments = arguments_of(model.state_dict(), name)
    again = kind(**arguments, device="meta")
    assert {key: each.shape for key, each in again.state_dict().items()} == {
        key: each.shape for key, each in model.state_dict().items()
    }
    heads = [getattr(module, "num_heads", None) for module in model.modules()]
    assert heads == [getattr(module, "num_heads", None) for module in again.modules()]
    scans = [str(module.scan) for module in model.modules() if hasattr(module, "scan")]
    assert scans == [str(module.scan) for module in again.modules() if hasattr(module, "scan")]


def test_searched_directions():
    """Four different ones a layer, as many rows as layers; what was published without a search has none."""
    tables = [("localvim", (192, 20), 20), ("localvmamba", (2, 2, 9, 2), 15), ("localvmamba", (2, 2, 27, 2), 33)]
    for model, size, rows in tables:
        found = searched_directions(model, size)
        assert len(found) == rows
        assert all(len(set(row)) == len(row) == 4 for row in found)
    assert searched_directions("localvim", (192, 20))[:2] == [
        ["h", "v_flip", "w7", "w7_flip"],
        ["h_flip", "w2_flip", "w7", "w7_flip"],
    ]
    assert searched_directions("localvim", (384, 20)) is None


def test_what_tells_a_videomamba_from_a_vim():
    weights = made("videomamba").state_dict()
    assert find(weights, "videomamba_t16_in1k_res224.pth").model.__name__ == "VideoMamba"
    assert find(weights, "weights.pth").model.__name__ == "Vim"
    assert find(weights, "weights.pth", "videomamba").model.__name__ == "VideoMamba"
    with pytest.raises(UserError, match="no such model"):
        find(weights, "weights.pth", "resnet")
    with pytest.raises(UserError, match="image model"):
        find({"fc.weight": torch.ones(2, 2)}, "weights.pth")


def test_names_that_mean_published_weights():
    assert is_published("hustvl/Vim-tiny-midclstok")
    assert is_published("ChenhongyiYang/PlainMamba")
    assert is_published("vmamba_tiny.in1k")
    assert not is_published("vmamba_tiny_v0")
    assert not is_published("runs/vision/vim/1")
    assert {module_of(each.model).split("_")[0] for each in LAYOUTS} <= {name.split("_")[0] for name in default_cfgs}
