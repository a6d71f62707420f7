"""Where a segmentation's Mamba layers take a class from: hidden attention (arXiv 2403.01590) drawn over the slices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...core.errors import UserError
from ...core.explanation.matrices import UNROLL, mean_of, unroll
from ...core.mixers.walk import sizes_of
from ..trained import Trained
from .inference import FINER, Planes, filled_sizes
from .overlays import draw_cases, grey_of, planes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TOKENS = 1024  # of a map at most: the hidden attention of more is a matrix of gigabytes


@torch.no_grad()
def attention_over(model: nn.Module, window: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """Hidden attention, (tokens, tokens), of the Mamba layers on the finest map that has at most TOKENS tokens, and its sizes.

    Entry [i, j] is what token i takes from token j: the mean of absolute values over the channels and over those layers.

    Args:
        window: (channels, *patch).

    Raises:
        UserError: the network has no such layer.
    """
    calls: list[tuple[nn.Module, tuple]] = []

    def note(mixer: nn.Module, given: tuple, keywords: dict, _: object) -> None:
        named = dict(zip(("x", "grid"), given, strict=False)) | keywords
        calls.append((mixer, (named["x"], named.get("grid"), named.get("seq_idx"))))

    mixers = [module for module in model.modules() if isinstance(module, tuple(UNROLL))]
    hooks = [mixer.register_forward_hook(note, with_kwargs=True) for mixer in mixers]
    try:
        model(window[None])
    finally:
        for hook in hooks:
            hook.remove()
    axes = window.dim() - 1
    walked = [(call, sizes_of(call[1][1], call[1][0].shape[1])[0]) for call in calls]
    found = [each for each in walked if len(each[1]) == axes and each[0][1][0].shape[1] <= TOKENS]
    if not found:
        raise UserError(
            "this network has no hidden attention to look into", given=f"model {type(model).__name__}",
            allowed=f"Mamba layers on a map of {axes} axes and at most {TOKENS:,} tokens",
        )  # fmt: skip
    finest = max((sizes for _, sizes in found), key=np.prod)
    maps = [mean_of(unroll(mixer, *given), torch.abs).mean(0) for (mixer, given), sizes in found if sizes == finest]
    return torch.stack(maps).mean(0), finest


def draw_attention(run: Trained, image: Planes, classes: np.ndarray) -> Figure:
    """A row a class: slices of the window around its middle, the class in colour, beside where its tokens take from.

    Args:
        image: as the network takes it. classes: that were answered, on the image's or another grid.

    Raises:
        UserError: the network has no Mamba layer that can be looked into.
    """
    patch, names = tuple(run.describe["patch_size"]), run.describe["classes"]
    rows = []
    for number in range(1, len(names)):
        inside = np.argwhere(classes == number)
        if not len(inside):
            continue
        middle = inside.mean(0) * np.array(image.sizes) / np.array(classes.shape)
        where = _around(middle, image.sizes, patch)
        window, labels = _cut(image, where, patch), _labels_at(classes, image.sizes, where, patch) == number
        matrix, sizes = attention_over(run.model, window.to(run.device))
        share = F.adaptive_avg_pool2d if len(sizes) == 2 else F.adaptive_avg_pool3d
        weights = share(torch.from_numpy(labels).float()[None], sizes)[0].flatten().to(matrix)
        heat = weights @ matrix.fill_diagonal_(0) / weights.sum().clamp(min=1e-9)
        mode = {2: FINER[2], 3: "trilinear"}[len(sizes)]
        heat = F.interpolate(heat.view(1, 1, *sizes), size=patch, mode=mode)[0, 0].cpu().numpy()
        rows.append((str(names[number]), _pictures(window.numpy(), labels, heat)))
    if not rows:
        raise UserError("no voxel was given a class: there is nothing to explain")
    return draw_cases(rows, [], "Each class, and where its tokens take from in the Mamba layers (hidden attention)")


def _around(middle: np.ndarray, sizes: Sequence[int], patch: Sequence[int]) -> list[int]:
    """The first voxel of a window around a place, within the image where that is large enough."""
    spare = np.array(filled_sizes(sizes, patch)) - patch
    return [int(first) for first in np.clip(np.round(middle).astype(int) - np.array(patch) // 2, 0, spare)]


def _cut(image: Planes, where: Sequence[int], patch: Sequence[int]) -> Tensor:
    last = [min(first + size, whole) for first, size, whole in zip(where, patch, image.sizes, strict=True)]
    part = torch.as_tensor(image.read(where[0], last[0]))
    part = part[(slice(None), slice(None), *(slice(a, b) for a, b in zip(where[1:], last[1:], strict=True)))]
    missing = [size - found for size, found in zip(patch, part.shape[1:], strict=True)]
    return F.pad(part, [each for size in reversed(missing) for each in (0, size)])


def _labels_at(classes: np.ndarray, sizes: Sequence[int], where: Sequence[int], patch: Sequence[int]) -> np.ndarray:
    """The classes at the voxels of a window of the image's grid, those of the nearest voxel of theirs; 0 outside."""
    places = []
    for axis, (first, length, whole) in enumerate(zip(where, patch, sizes, strict=True)):
        at = (np.arange(first, first + length) + 0.5) * classes.shape[axis] / whole
        places.append(np.where(at < classes.shape[axis], at, -1).astype(int))
    found = classes[np.ix_(*[each.clip(0) for each in places])].copy()
    for axis, each in enumerate(places):
        found[(slice(None),) * axis + (each < 0,)] = 0
    return found


def _pictures(window: np.ndarray, labels: np.ndarray, heat: np.ndarray) -> list[np.ndarray]:
    """Of each plane the slice with the class in colour, and the same under the heat."""
    from ...core.explanation.draw import heat_over
    from .overlays import coloured

    pictures = []
    for cut in planes(labels.shape, labels.astype(np.uint8)):
        grey = grey_of(window[(slice(None), *cut)])
        plane = torch.from_numpy(np.ascontiguousarray(heat[cut]))
        rgb = torch.from_numpy(np.repeat(grey[None], 3, 0))
        hot = heat_over(plane.flatten(), plane.shape, rgb)
        pictures += [coloured(grey, labels[cut].astype(np.uint8)), hot.movedim(0, -1).numpy()]
    return pictures
