"""What an image classifier's answers rest on: each patch of the images, weighed by its part."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...core.explanation import check_method, explain, heat_over, part_in_answer
from ...core.scans import Grid
from .film import strip_of_tokens


class Explained(NamedTuple):
    """logits: (batch, classes). weights: (batch, tokens), the part of each token in the likeliest class."""

    logits: Tensor
    weights: Tensor


def explain_images(model: nn.Module, images: Tensor, method: str = "attribution") -> Explained:
    """What the likeliest class of each image rests on.

    Args:
        model: a Vim: its mixers are looked into, its `answering` says which tokens the answer is read from.
        images: (batch, channels, height, width).
        method: one of core.explanation.METHODS.

    Raises:
        UserError: an unknown method.
    """
    check_method(method)
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            logits = model(images)
        said = logits.argmax(1, keepdim=True)
        score = (lambda answer: answer.gather(1, said)) if method == "attribution" else None
        found = explain(model, images, method=method, score=score)
    finally:
        model.train(training)
    return Explained(logits, part_in_answer(found, model.answering))


def beside_heat(images: Tensor, weights: Tensor, grid: Grid) -> Tensor:
    """Each image, then the same under the heat map of its tokens: (2 * batch, 3, height, width).

    Args:
        images: (batch, channels, height, width) between 0 and 1, of videos strips; all but three channels become their mean.
        weights: (batch, tokens).
    """
    if grid.ndim == 3:
        weights, grid = strip_of_tokens(weights, grid)
    if images.shape[1] != 3:
        images = images.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    pairs = [(image, heat_over(each, grid, image)) for image, each in zip(images, weights, strict=True)]
    return torch.stack([picture for pair in pairs for picture in pair])
