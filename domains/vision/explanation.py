"""What an image classifier's answers rest on: each patch of the images, weighed by its part; and how far a token sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...core.errors import UserError
from ...core.explanation import can_unroll, check_method, explain, heat_over, part_in_answer, walked_maps
from ...core.scans import Grid
from .film import strip_of_tokens
from .models.backbone import Hierarchical, grids_of


class Explained(NamedTuple):
    """logits: (batch, classes). weights: (batch, tokens), the part of each token of the grid in the likeliest class."""

    logits: Tensor
    weights: Tensor
    grid: Grid


def can_explain(model: nn.Module) -> bool:
    """Whether there is hidden attention to look into: a Vim, or a model of stages with mixers that have some."""
    return hasattr(model, "answering") or (isinstance(model, Hierarchical) and any(map(can_unroll, model.modules())))


def explain_images(model: nn.Module, images: Tensor, method: str = "attribution") -> Explained:
    """What the likeliest class of each image rests on.

    Args:
        model: a Vim, whose `answering` says which tokens the answer is read from; or one of stages, read from the last map's mean.
        images: (batch, channels, height, width).
        method: one of core.explanation.METHODS.

    Raises:
        UserError: an unknown method, a model without hidden attention.
    """
    check_method(method)
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            logits = model(images)
        said = logits.argmax(1, keepdim=True)
        score = (lambda answer: answer.gather(1, said)) if method == "attribution" else None
        if hasattr(model, "answering"):
            found = explain(model, images, method=method, score=score)
            return Explained(logits, part_in_answer(found, model.answering), model.grid)
        maps = walked_maps(model, images, method=method, score=score)
        return Explained(logits, *through_stages(model, maps, images.shape[-2:], len(images)))
    finally:
        model.train(training)


def through_stages(
    model: Hierarchical, maps: Sequence[tuple[tuple[int, ...], Tensor]], size: Sequence[int], batch: int
) -> tuple[Tensor, Grid]:
    """The part of each token of the first grid that is mixed in the mean of the last map.

    From the last stage to the first: a token's part goes to those that it took from (its part in itself, which the residual stream
    makes the largest, is left out), then evenly to the tokens of the finer map that it was made from. Stages without such mixers
    pass it on.

    Args:
        maps: as of core.explanation.walked_maps. size: of the images. batch: number of images.
    """
    grids = grids_of(tuple(size), model.reductions)
    mixing = [stage for stage, each in enumerate(model.stages) if any(map(can_unroll, each.modules()))]
    # Mixers of neighbouring stages of the same grid are one map.
    firsts = [stage for stage in mixing if stage - 1 not in mixing or grids[stage - 1].sizes != grids[stage].sizes]
    if len(firsts) != len(maps):
        raise UserError(
            "the model's mixers walk other grids than it says", given=f"{len(maps)} of {len(firsts)} stages"
        )
    part = maps[-1][1].new_full((batch, *grids[-1].sizes), 1 / grids[-1].tokens)
    for stage in reversed(range(firsts[0], len(grids))):
        part = _onto(part, grids[stage].sizes)
        if stage in firsts:
            sizes, found = maps[firsts.index(stage)]
            part = _taken(part, found, sizes)
    return part.flatten(1), grids[firsts[0]]


def _onto(part: Tensor, sizes: Sequence[int]) -> Tensor:
    """The part of each token of a map, (batch, rows, columns), shared by those of a finer one."""
    if tuple(part.shape[1:]) == tuple(sizes):
        return part
    finer = F.interpolate(part[:, None], tuple(sizes), mode="nearest")[:, 0]
    return finer * (part.shape[1] * part.shape[2] / (sizes[0] * sizes[1]))


def _taken(part: Tensor, found: Tensor, window: Sequence[int]) -> Tensor:
    """Parts, (batch, rows, columns), handed on to whom each token took from in its window, (windows, tokens, tokens)."""
    rows, columns = part.shape[1:]
    padded = F.pad(part, (0, -columns % window[1], 0, -rows % window[0]))
    down, across = padded.shape[1] // window[0], padded.shape[2] // window[1]
    parts = padded.unflatten(2, (across, window[1])).unflatten(1, (down, window[0])).transpose(2, 3)
    own = torch.eye(found.shape[-1], dtype=torch.bool, device=found.device)
    taken = torch.bmm(parts.reshape(len(found), 1, -1), found.masked_fill(own, 0))
    taken = taken.reshape(parts.shape).transpose(2, 3).flatten(3, 4).flatten(1, 2)
    return taken[:, :rows, :columns]


def receptive_field(model: nn.Module, images: Tensor) -> Tensor:
    """How much each pixel moves the middle token of a model's last map, (height, width), the largest being 1.

    The effective receptive field (Luo et al. 2016, arXiv 1701.04128): the absolute gradient of the token's channels' sum, summed
    over the image's channels, mean over the images.

    Args:
        model: any of timm's.
        images: (batch, channels, height, width).
    """
    training, images = model.training, images.detach().requires_grad_()
    model.eval()
    try:
        [last] = model.forward_intermediates(images, indices=1, intermediates_only=True)
        middle = last[:, :, last.shape[2] // 2, last.shape[3] // 2]
        [gradient] = torch.autograd.grad(middle.sum(), images)
    finally:
        model.train(training)
    field = gradient.abs().sum(1).mean(0)
    return field / field.max().clamp_min(torch.finfo(field.dtype).tiny)


def share_within(field: Tensor, share: float) -> float:
    """Part of the image's area that the smallest rectangle of its proportions around the middle takes which holds such a share.

    Args:
        field: (height, width), none negative. share: of its sum, 0 to 1.
    """
    height, width = field.shape
    rows = (torch.arange(height, device=field.device) + 0.5 - height / 2).abs() / (height / 2)
    columns = (torch.arange(width, device=field.device) + 0.5 - width / 2).abs() / (width / 2)
    distance, order = torch.maximum(rows[:, None], columns).flatten().sort()
    held = field.flatten()[order].cumsum(0)
    reached = int((held < share * held[-1]).sum())
    return float(distance[min(reached, len(distance) - 1)]) ** 2


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
