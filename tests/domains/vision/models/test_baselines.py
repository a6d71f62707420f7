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
