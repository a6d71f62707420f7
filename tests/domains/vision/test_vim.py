import copy

import pytest
import timm
import torch

from polymamba.core import scans
from polymamba.core.errors import UserError
from polymamba.core.scans import Grid
from polymamba.domains.vision.models.patches import fitting_patch_sizes, suitable_patch_size
from polymamba.domains.vision.models.position import fit_position_embedding
from polymamba.domains.vision.models.vim import Vim, build, checkpoint_filter_fn

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_classes": 5, "d_state": 4}
DOUBLE = {"dtype": torch.float64}


def vim(seed=0, **options):
    torch.manual_seed(seed)
    return Vim(**{**SMALL, **DOUBLE, **options}).eval()


def image(batch=2, size=(32, 32), channels=3, seed=1):
    return torch.randn(batch, channels, *size, generator=torch.Generator().manual_seed(seed), **DOUBLE)


@pytest.mark.parametrize(("name", "count"), [("tiny", 7_148_008), ("small", 25_796_584), ("base", 97_598_440)])
def test_published_parameter_counts(name, count):
    model = timm.create_model(f"vim_{name}_patch16_224", device="meta")
    assert sum(p.numel() for p in model.parameters()) == count


def test_matches_the_original_model(golden):
    model = golden.fill(timm.create_model("vim_tiny_patch16_224"))
    with torch.no_grad():
        tokens = model.forward_features(golden.seeded(2, 3, 224, 224))
        answers = model.forward_head(tokens), model.forward_head(tokens, pre_logits=True)
    result = golden.compare("vim_tiny", answers, model)
    assert max(result["errors"]) < 1e-5
    assert not (result["missing"])
    assert not (result["extra"])
    assert not (result["shapes"])


@pytest.mark.parametrize("name", timm.list_models("vim*"))
def test_every_registered_model(name):
    torch.manual_seed(0)
    model = timm.create_model(name, img_size=32, embed_dim=16, depth=3, d_state=4, num_classes=7)
    x = torch.randn(2, 3, 32, 32)
    scores = model(x)
    assert scores.shape == (2, 7)
    scores.square().sum().backward()
    assert [key for key, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
    assert model.get_classifier() is model.head
    assert model.forward_head(model.forward_features(x), pre_logits=True).shape == (2, 16)
    model.reset_classifier(3)
    assert model(x).shape == (2, 3)
    model.reset_classifier(0, "")
    assert model(x).shape == (2, model.tokens, 16)
    config = model.pretrained_cfg
    assert isinstance(model.get_submodule(config["first_conv"]), torch.nn.Conv2d)


def test_published_models_know_their_weights():
    for name in ("tiny", "small", "base"):
        config = timm.get_pretrained_cfg(f"vim_{name}_patch16_224")
        assert config.hf_hub_id == f"hustvl/Vim-{name}-midclstok"
        assert config.hf_hub_filename.endswith(".pth")


def test_sides_of_the_block():
    """The stream: h = h + mixer(norm(h)), from patches with the class token in the middle, positions added to both."""
    model, x = vim(depth=3), image(1)
    patches = model.patch_embed.proj(x).flatten(2).transpose(1, 2)
    h = torch.cat([patches[:, :8], model.cls_token, patches[:, 8:]], 1) + model.pos_embed
    for layer in model.layers:
        h = h + layer.mixer(layer.norm(h), Grid((4, 4), (8,)))[0]
    expected = model.head(model.norm_f(h)[:, 8])
    torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize(
    ("where", "extra"), [("front", [0]), ("middle", [8]), ("end", [16]), ("double", [0, 17]), ("none", [])]
)
def test_class_token_places(where, extra):
    model, x = vim(class_token=where), image()
    tokens = model.forward_features(x)
    assert tokens.shape == (2, 16 + len(extra), 16)
    pooled = tokens[:, extra].mean(1) if extra else tokens.mean(1)
    torch.testing.assert_close(model(x), model.head(pooled))
    names = [name for name, _ in model.named_parameters() if name.startswith("cls_token")]
    assert len(names) == len(extra)
    model.reset_classifier(5, "avg")
    rest = [t for t in range(tokens.shape[1]) if t not in extra]
    torch.testing.assert_close(model.forward_head(tokens, pre_logits=True), tokens[:, rest].mean(1))


def test_class_tokens_of_both_ends_differ():
    model = vim(class_token="double")
    sequence = model._embed(image(1)) - model.pos_embed
    torch.testing.assert_close(sequence[0, 0], model.cls_token_head[0, 0])
    torch.testing.assert_close(sequence[0, -1], model.cls_token_tail[0, 0])


def test_division_and_the_first_version():
    x = image(1)
    divided, summed = vim(depth=1), vim(depth=1, divide=False)
    assert divided.layers[0].mixer.merge == "mean"
    assert summed.layers[0].mixer.merge == "sum"
    with torch.no_grad():
        summed.layers[0].mixer.out_proj.weight.div_(2)
    torch.testing.assert_close(divided(x), summed(x))
    assert vim(parameters="decay").layers[0].mixer.merge == "sum"
    assert vim(scan="skip").layers[0].mixer.merge == "sum"


def test_images_that_are_not_square():
    model = vim(img_size=(24, 40))
    assert model.grid == Grid((3, 5), (7,))
    assert model(image(2, (24, 40))).shape == (2, 5)
    assert model.forward_intermediates(image(2, (24, 40)))[1][0].shape == (2, 16, 3, 5)


def test_overlapping_patches():
    model = vim(patch_size=16, stride=8)
    assert model.grid.sizes == (3, 3)
    assert model(image()).shape == (2, 5)
    assert timm.create_model("vim_tiny_patch16_stride8_224", depth=1).grid.sizes == (27, 27)


@pytest.mark.parametrize("scan", [name for name in scans.names() if 2 in scans.get(name).ndims])
def test_every_scan_mode(scan):
    model = vim(scan=scan, img_size=56)
    model(image(1, (56, 56))).square().sum().backward()
    idle = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert idle == []


def test_scans_with_a_path_per_layer():
    model = vim(scan="zigzag", depth=3)
    orders = [layer.mixer.scan.order(model.grid) for layer in model.layers]
    assert [len(order) for order in orders] == [1, 1, 1]
    assert len({tuple(order[0].tolist()) for order in orders}) == 3


def test_gradient_checkpointing_changes_nothing():
    model, x, found = vim(drop_path_rate=0.3).train(), image(), []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        torch.manual_seed(3)
        found.append(torch.autograd.grad(model(x).square().sum(), list(model.parameters())))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


@pytest.mark.parametrize("options", [{}, {"conv": "grid"}, {"scan": "skip"}, {"parameters": "decay"}])
def test_bfloat16_autocast_stays_near_float32(options):
    model, x = vim(dtype=torch.float32, **options), image().float()
    with torch.autocast("cpu", torch.bfloat16):
        found = model.forward_features(x)
        model(x).float().square().sum().backward()
    expected = model.forward_features(x)
    assert (found.float() - expected).norm() < 0.03 * expected.norm()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.filterwarnings("ignore")
def test_whole_model_compiles_as_one_graph_and_exports():
    torch._dynamo.reset()
    model, x = vim(scan="cross", dtype=torch.float32), image().float()
    expected = model(x)
    torch.testing.assert_close(torch.compile(model, fullgraph=True, backend="aot_eager")(x), expected)
    torch.testing.assert_close(torch.export.export(model, (x,)).module()(x), expected)


def test_drop_path_rises_over_the_layers():
    model = vim(depth=4, drop_path_rate=0.3)
    rates = [getattr(block.drop_path, "drop_prob", 0.0) for block in [*model.layers, model]]
    assert rates == pytest.approx([0, 0, 0.1, 0.2, 0.3])


def test_intermediates():
    model, x = vim(depth=3), image()
    last, found = model.forward_intermediates(x, indices=[0, -1], norm=True)
    torch.testing.assert_close(last, model.forward_features(x))
    assert [f.shape for f in found] == [(2, 16, 4, 4)] * 2
    patches, prefix = model.forward_intermediates(
        x, 1, norm=True, output_fmt="NLC", intermediates_only=True, return_prefix_tokens=True
    )[0]
    torch.testing.assert_close(patches, torch.cat([last[:, :8], last[:, 9:]], 1))
    torch.testing.assert_close(prefix, last[:, 8:9])
    torch.testing.assert_close(found[1].flatten(2).transpose(1, 2), patches)
    early = model.forward_intermediates(x, [0], stop_early=True, intermediates_only=True)[0]
    torch.testing.assert_close(early, model.forward_intermediates(x, [0], intermediates_only=True)[0])
    with pytest.raises(UserError, match="NCHW"):
        model.forward_intermediates(x, output_fmt="NHWC")


def test_features_only_through_timm():
    model = timm.create_model(
        "vim_tiny_patch16_224", features_only=True, out_indices=(0, 1), img_size=32, embed_dim=16, depth=3
    )
    assert [f.shape for f in model(torch.randn(1, 3, 32, 32))] == [(1, 16, 2, 2)] * 2
    assert model.feature_info.channels() == [16, 16]
    assert model.feature_info.reduction() == [16, 16]
    assert len(model.model.layers) == 2


def test_weight_decay_spares_decays_skips_positions_and_class_tokens():
    model = vim(scan="cross", class_token="double")
    spared = model.no_weight_decay()
    assert {"pos_embed", "cls_token_head", "cls_token_tail"} <= spared
    for end in ("A_log", "A_b_log", "A_d_log", "D", "D_d"):
        assert f"layers.1.mixer.{end}" in spared
    assert len(spared) == 3 + 2 * (4 + 4)
    assert "layers.0.mixer.dt_proj.weight" not in spared


def test_layer_groups():
    from timm.models._manipulate import group_parameters

    model = vim(depth=3)
    groups = group_parameters(model, model.group_matcher(), reverse=True)
    assert groups["patch_embed.proj.weight"] == groups["pos_embed"] == groups["cls_token"] == 0
    assert groups["layers.0.mixer.A_log"] == 1
    assert groups["layers.2.norm.weight"] == 3
    assert groups["norm_f.weight"] == 3
    assert groups["head.weight"] == 4


def test_saved_positions_of_the_same_size_are_left_alone():
    embedding = torch.randn(1, 17, 6)
    assert fit_position_embedding(embedding, 1, "middle", Grid((4, 4), (8,))) is embedding


@pytest.mark.parametrize(("where", "old", "new"), [("front", 0, 0), ("middle", 8, 12), ("end", 16, 24)])
def test_resized_positions_keep_the_class_token(where, old, new):
    embedding = torch.randn(1, 17, 6)
    grid = Grid.with_class_token((4, 6), where)
    resized = fit_position_embedding(embedding, 1, where, grid)
    assert resized.shape == (1, 25, 6)
    assert torch.equal(resized[:, new], embedding[:, old])
    rows = [t for t in range(17) if t != old]
    image = embedding[:, rows].transpose(1, 2).unflatten(2, (4, 4))
    expected = torch.nn.functional.interpolate(image, size=(4, 6), mode="bicubic", antialias=True)
    found = resized[:, [t for t in range(25) if t != new]]
    torch.testing.assert_close(found, expected.flatten(2).transpose(1, 2))


def test_a_resized_constant_stays_constant():
    embedding = torch.ones(1, 197, 3)
    embedding[:, 98] = 7
    resized = fit_position_embedding(embedding, 1, "middle", Grid.with_class_token((27, 27), "middle"))
    assert (resized[:, 364] == 7).all()
    assert torch.allclose(resized[:, [t for t in range(730) if t != 364]], torch.ones(1))


def test_positions_without_class_tokens_and_of_unknown_grids():
    embedding = torch.randn(1, 17, 6)
    dropped = fit_position_embedding(embedding, 1, "none", Grid((4, 4)))
    torch.testing.assert_close(dropped, torch.cat([embedding[:, :8], embedding[:, 9:]], 1))
    assert fit_position_embedding(torch.randn(1, 8, 6), 0, "none", Grid((4, 8))).shape == (1, 32, 6)
    with pytest.raises(UserError, match="which grid"):
        fit_position_embedding(torch.randn(1, 7, 6), 0, "none", Grid((4, 4)))
    with pytest.raises(UserError, match="class_token=middle"):
        fit_position_embedding(embedding, 1, "double", Grid.with_class_token((4, 4), "double"))


def test_checkpoint_of_another_resolution_loads():
    source, target = vim(), vim(seed=5, img_size=(48, 40))
    state = checkpoint_filter_fn({"model": copy.deepcopy(source.state_dict()), "epoch": 3}, target)
    target.load_state_dict(state)
    assert torch.equal(target.pos_embed[:, 15], source.pos_embed[:, 8])
    assert torch.equal(target.layers[1].mixer.A_b_log, source.layers[1].mixer.A_b_log)
    without = vim(class_token="none")
    without.load_state_dict(checkpoint_filter_fn(source.state_dict(), without))


def test_pretrained_weights_through_timm():
    source = timm.create_model("vim_micro", num_classes=1000, class_token="front")
    overlay = {"state_dict": {"model": source.state_dict()}, "hf_hub_id": None, "hf_hub_filename": None}
    model = timm.create_model(
        "vim_micro", pretrained=True, pretrained_cfg_overlay=overlay, class_token="front", num_classes=4, img_size=64
    )
    assert torch.equal(model.layers[3].mixer.in_proj.weight, source.layers[3].mixer.in_proj.weight)
    assert model.head.weight.shape == (4, 64)
    assert model.patch_embed.proj.weight.shape == (64, 3, 8, 8)


def test_a_checkpoint_of_another_scan_is_named():
    with pytest.raises(UserError, match="another scan") as caught:
        vim(scan="cross").load_state_dict(vim().state_dict())
    assert "cross" in str(caught.value)


def test_a_scan_that_cannot_walk_the_grid_says_so_when_built():
    with pytest.raises(UserError, match="window"):
        vim(scan="local", scan_parameters={"window": (2, 2, 2)})


def test_patch_sizes():
    assert fitting_patch_sizes((24, 36)) == [1, 2, 3, 4, 6, 12]
    sides = {7: 1, 8: 2, 16: 2, 28: 4, 32: 4, 64: 8, 96: 12, 224: 16}
    assert {side: suitable_patch_size((side, side)) for side in sides} == sides
    assert suitable_patch_size((30, 45)) == 5
    with pytest.raises(UserError, match="224x224"):
        suitable_patch_size((227, 227))


def test_misfits_are_user_errors():
    with pytest.raises(UserError, match="1, 2, 4, 7, 14, 28"):
        vim(img_size=28, patch_size=8)
    with pytest.raises(UserError, match="every 8 pixels"):
        vim(img_size=28, patch_size=16, stride=8)
    with pytest.raises(UserError, match="32x32"):
        vim()(image(1, (32, 40)))
    with pytest.raises(UserError, match="middle"):
        vim(class_token="midle")
    with pytest.raises(UserError, match="avg"):
        vim(class_token="none", global_pool="token")


def test_build_from_what_the_data_say():
    digits = {"channels": 1, "image_size": (8, 8), "num_classes": 10, "model_size": "micro"}
    model = build(digits, scans.get("cross"))
    assert model.patch_embed.proj.weight.shape[1] == 1
    assert (model.num_classes, model.tokens, len(model.layers)) == (10, 16, 4)
    assert model.scan == scans.get("cross")
    wide = build(digits, scans.get("raster"), size="tiny", patch_size=2, depth=1, embed_dim=32, class_token="none")
    assert (wide.tokens, len(wide.layers), wide.embed_dim) == (16, 1, 32)
    assert build(digits, "raster", size="tiny", depth=1).class_token == "middle"
    assert build(digits, "raster", class_token="end").grid.extra == (16,)
    with pytest.raises(UserError, match="tiny"):
        build(digits, scans.get("raster"), size="tini")
    with pytest.raises(UserError, match="do not fit"):
        build(digits, scans.get("raster"), patch_size=3)


def test_flops_and_tokens_of_an_image():
    model = timm.create_model("vim_tiny_patch16_224", device="meta")
    assert model.tokens == 197
    inner, length = 384, 197
    mixer = 192 * 3 * inner + 2 * inner * (44 + 12 + 4)
    layers = 24 * length * (2 * mixer + 2 * 9 * inner * 16)
    assert model.flops() == layers + 2 * 196 * 768 * 192 + 2 * 192 * 1000
    assert model.flops(3) == 3 * model.flops()


def test_one_seed_gives_one_model():
    first, second = (vim(seed=4, dtype=torch.float32).state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)
