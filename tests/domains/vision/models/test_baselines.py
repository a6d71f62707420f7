"""Timm's networks for images of any size."""

import pytest
import torch

from polymamba.domains.vision.models.baselines import convnext, vit


@pytest.mark.parametrize("made", [convnext, vit])
@pytest.mark.parametrize("image_size", [(8, 8), (16, 16), (20, 24), (28, 28), (31, 47), (32, 32), (64, 40)])
def test_the_small_forms_see_images_of_any_size(made, image_size):
    model = made({"channels": 1, "image_size": image_size, "num_classes": 10, "model_size": "micro"})
    x = torch.randn(2, 1, *image_size)
    torch.nn.functional.cross_entropy(model(x), torch.tensor([3, 7])).backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("size", ["micro", "atto"])
@pytest.mark.parametrize(
    ("side", "stride", "smallest"), [(8, 1, 1), (16, 4, 1), (28, 4, 1), (32, 4, 1), (64, 4, 2), (31, 4, 1), (15, 1, 1)]
)
def test_convnext_sees_patches_of_four_where_something_is_left(size, side, stride, smallest):
    model = convnext({"channels": 3, "image_size": (side, side), "num_classes": 10, "model_size": size})
    assert model.stem[0].stride == (stride, stride)
    assert model.forward_features(torch.randn(1, 3, side, side)).shape[-2:] == (smallest, smallest)
