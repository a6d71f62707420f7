import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.domains.medical.models.umamba import UMamba, build

PLAN = {"channels": 1, "num_classes": 3, "patch_size": [16, 12, 8]}
PLAN |= {"kernels": [[3, 3, 3]] * 2, "strides": [[1, 1, 1], [2, 2, 2]], "model_size": "micro"}


@pytest.mark.parametrize(
    ("name", "patch", "where"), [("umamba_bot_2d", [64, 96], "bottleneck"), ("umamba_enc_3d", [32, 32, 24], "encoder")]
)
def test_matches_the_original(golden, name, patch, where):
    meta = golden.meta_of(name)
    asked = meta["arguments"]
    model = UMamba(
        1, 4, patch, asked["features_per_stage"], asked["kernel_sizes"], asked["strides"], where, compat="published"
    )
    golden.fill(model, aliases=meta["aliases"])
    with torch.no_grad():
        result = golden.compare(name, model.scales(golden.seeded(*meta["inputs"][0])), model)
    assert len(result["errors"]) == meta["final_outputs"]
    assert max(result["errors"]) < 1e-4
    # the original names some tensors twice
    assert not set(result["missing"]) - {*meta["aliases"], *meta["aliases"].values()}
    assert not result["extra"] + result["shapes"]
    assert result["parameters"][0] == result["parameters"][1]


@pytest.mark.parametrize("where", ["bottleneck", "encoder"])
def test_the_twin_without_mamba_lacks_its_layers_alone(where):
    torch.manual_seed(0)
    model, twin = (build(PLAN, where=where, mamba=on) for on in (True, False))
    names = {name for name in model.state_dict() if "mamba" not in name}
    assert set(twin.state_dict()) == names
    assert len(model.state_dict()) > len(names)
    assert twin.grids is None
    assert model.grids[-1] == (8, 6, 4)


def test_any_sizes_and_scans():
    for scan in ("cross", "slices", "zigzag", "skip"):
        model = build(PLAN, scan, where="encoder").eval()
        for sizes in ((16, 12, 8), (7, 9, 5), (4, 3, 2)):
            assert model(torch.randn(1, 1, *sizes)).shape == (1, 3, *sizes)


def test_training_answers_at_every_scale():
    plan = {**PLAN, "kernels": [[3, 3, 3]] * 3, "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 1]]}
    model = build(plan)
    assert [tuple(each.shape[2:]) for each in model(torch.randn(1, 1, 16, 12, 8))] == [(16, 12, 8), (8, 6, 4)]
    assert build(plan, deep_supervision=False).train()(torch.randn(1, 1, 16, 12, 8)).shape == (1, 3, 16, 12, 8)


def test_channel_tokens_hold_to_one_patch():
    plan = {**PLAN, "kernels": [[3, 3, 3]] * 3, "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2]]}
    model = build(plan, where="encoder", base_features=16, compat="published").eval()
    assert model(torch.randn(1, 1, 16, 12, 8)).shape == (1, 3, 16, 12, 8)
    with pytest.raises(UserError, match="one size alone"):
        model(torch.randn(1, 1, 16, 16, 8))


def test_data_that_are_not_for_segmentation():
    with pytest.raises(UserError, match="segments images"):
        build({"name": "digits", "channels": 1, "num_classes": 10})
