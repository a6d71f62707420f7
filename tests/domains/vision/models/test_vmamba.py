"""VMamba in both versions against its original; its published layouts."""

import pytest
import timm
import torch

from polymamba.core.errors import UserError
from polymamba.domains.vision.models.plainmamba import PlainMamba
from polymamba.domains.vision.models.vmamba import SIZES, VMamba, build, checkpoint_filter_fn
from polymamba.domains.vision.published import read_weights


def stage_inputs(model, x):
    """The mean of what goes into each stage and of what comes out of the last, as the records have them."""
    x = model.patch_embed(x)
    found = [x.mean((1, 2))]
    for stage in model.layers:
        for block in stage.blocks:
            x = block(x)
        x = stage.downsample(x)
        found.append(x.mean((1, 2)))
    return found


@pytest.mark.parametrize(
    ("record", "size", "batch"), [("vmamba_tiny_s1l8", "tiny", 2), ("vmamba_tiny_v0", "tiny_v0", 1)]
)
def test_matches_the_original(golden, record, size, batch):
    model, weights = VMamba(**SIZES[size]).eval(), golden.weights(record)
    model.load_state_dict(checkpoint_filter_fn({"model": weights}, model))
    x = golden.seeded(batch, 3, 224, 224)
    with torch.no_grad():
        found = golden.compare(record, [model(x), *stage_inputs(model, x)])
    assert len(found["errors"]) == 6
    assert max(found["errors"]) < 1e-5
    assert sum(p.numel() for p in model.parameters()) == golden.meta_of(record)["parameters"]
    assert len(model.state_dict()) == len(weights)


def test_names_of_the_first_release():
    """ln_1, self_attention, patch_embed.proj and the head at the top, as v0's files have them."""
    torch.manual_seed(0)
    model = VMamba((16, 16), 3, 4, stride=4, dims=(8, 16), depths=(1, 1), version="v0", d_state=4, mlp_ratio=0)
    old = {}
    for name, value in model.state_dict().items():
        for new, first in (
            ("patch_embed.0.", "patch_embed.proj."), (".norm.", ".ln_1."), ("patch_embed.2.", "patch_embed.norm."),
            (".op.", ".self_attention."), ("classifier.ln_1.", "norm."), ("classifier.head.", "head."),
            ("downsample.ln_1.", "downsample.norm."),
        ):  # fmt: skip
            name = name.replace(new, first)
        old[name] = value
    assert "layers.0.blocks.0.ln_1.weight" in old
    assert "layers.0.downsample.reduction.weight" in old
    assert "norm.weight" in old
    found = checkpoint_filter_fn({"model": old}, model)
    assert found.keys() == model.state_dict().keys()


def test_pretrained_weights_through_timm(tmp_path):
    torch.manual_seed(0)
    options = {"img_size": 16, "dims": (8, 16), "depths": (1, 1)}
    first = timm.create_model("vmamba_micro", **options)
    torch.save({"model": first.state_dict()}, tmp_path / "weights.pth")
    second = timm.create_model(
        "vmamba_micro",
        pretrained=True,
        pretrained_cfg_overlay={"file": str(tmp_path / "weights.pth")},
        num_classes=7,
        **options,
    )
    state = second.state_dict()
    same = [
        name for name, value in first.state_dict().items() if "head" not in name and not torch.equal(value, state[name])
    ]
    assert same == []
    assert second(torch.randn(1, 3, 16, 16)).shape == (1, 7)


def test_build_from_what_the_data_say():
    describe = {"image_size": [8, 8], "channels": 1, "num_classes": 10, "model_size": "micro"}
    model = build(describe)
    assert [grid.sizes for grid in model.grids] == [(4, 4), (2, 2)]
    assert model.layers[0].blocks[0].op.paths == 4
    assert build(describe, scan="bidirectional", d_state=4).layers[1].blocks[0].op.d_state == 4
    assert [grid.sizes[0] for grid in build({**describe, "image_size": [224, 224]}, size="tiny").grids] == [
        56,
        28,
        14,
        7,
    ]
    with pytest.raises(UserError, match="size"):
        build(describe, size="huge")
    with pytest.raises(UserError, match="another scan"):
        build(describe, scan="raster").load_state_dict(model.state_dict())


def test_published_weights_begin_a_model_of_other_images(tmp_path):
    """init=: one channel of three, other classes, another size."""
    torch.manual_seed(0)
    first = VMamba(16, 3, 4, dims=(8, 16), depths=(1, 1))
    torch.save({"model": first.state_dict()}, tmp_path / "vmamba.pth")
    model = VMamba(24, 1, 4, dims=(8, 16), depths=(1, 1))
    model.load_state_dict(read_weights(tmp_path / "vmamba.pth", model))
    grey = torch.randn(2, 1, 24, 24)
    torch.testing.assert_close(model(grey), first(grey.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match="another model's"):
        read_weights(tmp_path / "vmamba.pth", PlainMamba(16, patch_size=4, depth=1))
    with pytest.raises(UserError, match="no published weights"):
        read_weights(tmp_path / "vmamba.pth", torch.nn.Linear(2, 2))
