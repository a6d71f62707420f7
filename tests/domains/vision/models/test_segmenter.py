"""Heads for segmentation over hierarchical and plain backbones, of this package and of timm."""

import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.domains.vision.models.segmenter import build

DESCRIBE = {"channels": 1, "image_size": [36, 28], "num_classes": 3, "model_size": "micro"}


@pytest.mark.parametrize("head", ["fpn", "upernet"])
@pytest.mark.parametrize(
    ("backbone", "options"),
    [
        ("vmamba_micro", {}), ("vmamba_micro", {"options": {"dims": [8, 8, 16], "depths": [1, 1, 1]}}),
        ("plainmamba_micro", {"patch_size": 4}),
        ("vim_micro", {"patch_size": 4, "options": {"embed_dim": 8, "depth": 2}}), ("resnet18", {}),
    ],
)  # fmt: skip
def test_every_pixel_gets_a_class_and_everything_learns(backbone, options, head):
    torch.manual_seed(0)
    model = build(DESCRIBE, backbone=backbone, head=head, channels=8, **options)
    images = torch.randn(2, 1, 36, 28)
    found = model(images)
    assert found.shape == (2, 3, 36, 28)
    found.square().mean().backward()
    assert [name for name, each in model.named_parameters() if each.grad is None] == []
    model.eval()
    torch.testing.assert_close(model(images)[:1], model(images[:1]), rtol=1e-4, atol=1e-5)


def test_hierarchical_backbones_take_images_of_other_sizes():
    model = build(DESCRIBE, backbone="vmamba_micro", channels=8)
    assert model(torch.randn(1, 1, 41, 30)).shape == (1, 3, 41, 30)


def test_one_map_becomes_a_pyramid():
    model = build(DESCRIBE, backbone="plainmamba_micro", channels=8, patch_size=4)
    sizes = [tuple(each(torch.randn(1, 48, 9, 7)).shape[2:]) for each in model.rescale]
    assert sizes == [(9, 7), (5, 4), (3, 2), (2, 1)]


def test_the_scan_is_the_backbones():
    cross, other = (build(DESCRIBE, scan=scan, channels=8) for scan in (None, "hilbert"))
    assert cross.backbone.scan.name == "cross"
    assert other.backbone.scan.name == "hilbert"
    assert build(DESCRIBE, scan="hilbert", backbone="resnet18", channels=8)
    assert any(name.endswith("A_logs") for name in cross.no_weight_decay())


def test_unknown_backbones_are_refused():
    with pytest.raises(UserError, match="no such backbone") as caught:
        build(DESCRIBE, backbone="vmamba_mikro")
    assert "vmamba_micro" in caught.value.do
