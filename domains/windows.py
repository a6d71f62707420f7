"""Whole volumes, of two axes too, by a network that was made for patches: windows that slide, mirrored ones.

A volume passes by along its first axis: what memory holds is a patch's depth of logits and not the volume's, whatever it is long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, combinations, groupby, islice
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Planes(Protocol):
    """A volume that is read a few planes at a time: `read(first, last)` -> (channels, last - first, *sizes[1:])."""

    sizes: tuple[int, ...]

    def read(self, first: int, last: int) -> np.ndarray: ...


class InMemory:
    """Planes of a volume (channels, *sizes)."""

    def __init__(self, volume: Tensor):
        self.volume, self.sizes = volume, tuple(volume.shape[1:])

    def read(self, first: int, last: int) -> Tensor:
        """Planes first to last - 1."""
        return self.volume[:, first:last]


def window_starts(sizes: Sequence[int], patch_size: Sequence[int], overlap: float) -> list[tuple[int, ...]]:
    """Where windows begin that cover a volume at least as large as they are; those of one first plane beside each other."""
    from monai.data.utils import dense_patch_slices

    steps = [
        size if patch == size else max(1, int(patch * (1 - overlap)))
        for size, patch in zip(sizes, patch_size, strict=True)
    ]
    return [tuple(each.start for each in window) for window in dense_patch_slices(sizes, patch_size, steps)]


def filled_sizes(sizes: Sequence[int], patch_size: Sequence[int]) -> tuple[int, ...]:
    """Sizes of a volume that is filled up with zeros to a patch."""
    return tuple(map(max, sizes, patch_size))


def count_windows(sizes: Sequence[int], patch_size: Sequence[int], overlap: float) -> int:
    """How many windows a volume takes."""
    return len(window_starts(filled_sizes(sizes, patch_size), patch_size, overlap))


@torch.no_grad()
def logits_along(
    model: nn.Module, volume: Planes, patch_size: Sequence[int], overlap: float = 0.5, windows: int = 4, mirror: bool = False,
    device: Any = "cpu", tick: Callable[[int], None] = lambda count: None,
) -> Iterator[Tensor]:  # fmt: skip
    """Logits of a whole volume, a few planes after the other: (classes, planes, *sizes[1:]).

    Windows of the patch's sizes are weighted by a bell curve, MONAI's; a volume that is smaller is filled up with zeros.

    Args:
        overlap: share of a window that the next one covers too. windows: at a time.
        mirror: average over the mirrored volumes along all axes.
        device: the model's. tick: is told of how many windows are done.
    """
    from monai.data.utils import compute_importance_map

    patch, whole = tuple(patch_size), filled_sizes(volume.sizes, patch_size)
    before = [(full - size) // 2 for full, size in zip(whole, volume.sizes, strict=True)]
    bell = compute_importance_map(patch, mode="gaussian", device=device)
    answer, sums = _mirrored(model, len(patch) if mirror else 0), None
    for first, starts in groupby(window_starts(whole, patch, overlap), key=lambda start: start[0]):
        if sums is not None:
            yield from sums.taken(first, before, volume.sizes)
        slab, starts = _slab(volume, first, patch[0], before, whole).to(device), iter(starts)
        while part := [_within(start[1:], patch[1:]) for start in islice(starts, windows)]:
            found = answer(torch.stack([slab[(slice(None), slice(None), *where)] for where in part]))
            sums = sums or _Sums(found, (patch[0], *whole[1:]), bell)
            for where, each in zip(part, found, strict=True):
                sums.add(where, each)
            tick(len(part))
    yield from sums.taken(whole[0], before, volume.sizes)


class _Sums:
    """Weighted sums of logits over windows, of a patch's depth of planes from plane `begun` on."""

    def __init__(self, found: Tensor, sizes: Sequence[int], bell: Tensor):
        self.begun, self.bell = 0, bell
        self.total, self.weight = found.new_zeros((found.shape[1], *sizes)), bell.new_zeros((1, *sizes))

    def add(self, where: tuple[slice, ...], logits: Tensor) -> None:
        """The logits of a window, (classes, *patch), at a place within the planes."""
        self.total[(slice(None), slice(None), *where)] += logits * self.bell
        self.weight[(slice(None), slice(None), *where)] += self.bell

    def taken(self, until: int, before: Sequence[int], sizes: Sequence[int]) -> Iterator[Tensor]:
        """Mean logits of the planes up to one, which no further window reaches, without what was filled up; they are let go."""
        low, high = max(before[0], self.begun), min(before[0] + sizes[0], until)
        if low < high:
            where = (slice(None), slice(low - self.begun, high - self.begun), *_within(before[1:], sizes[1:]))
            yield self.total[where] / self.weight[where]
        gone = until - self.begun
        for sums in (self.total, self.weight):
            kept = max(sums.shape[1] - gone, 0)
            sums[:, :kept] = sums[:, gone:].clone()
            sums[:, kept:] = 0
        self.begun = until


def _within(starts: Sequence[int], sizes: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(start, start + size) for start, size in zip(starts, sizes, strict=True))


def _mirrored(model: nn.Module, axes: int) -> Callable[[Tensor], Tensor]:
    """The model, averaged over the mirrored volumes along so many axes."""
    flips = list(chain.from_iterable(combinations(range(2, axes + 2), count) for count in range(axes + 1)))
    return lambda parts: sum(model(parts.flip(flip)).flip(flip) for flip in flips) / len(flips)


def _slab(volume: Planes, first: int, depth: int, before: Sequence[int], whole: Sequence[int]) -> Tensor:
    """Planes of the filled-up volume, (channels, depth, *whole[1:])."""
    low, high = (min(max(at - before[0], 0), volume.sizes[0]) for at in (first, first + depth))
    read = torch.as_tensor(volume.read(low, high))
    around = [(low + before[0] - first, first + depth - before[0] - high)]
    around += [(b, n - b - size) for b, n, size in zip(before[1:], whole[1:], volume.sizes[1:], strict=True)]
    return F.pad(read, [each for pair in reversed(around) for each in pair])


def segment(
    model: nn.Module, volumes: Tensor, patch_size: Sequence[int], overlap: float = 0.5, windows: int = 4, mirror: bool = False
) -> Tensor:  # fmt: skip
    """Logits of whole volumes, (batch, classes, *sizes), of volumes (batch, channels, *sizes); see `logits_along`."""
    # One volume at a time: how a window is batched with others' must not matter to it.
    return torch.stack([
        torch.cat(list(logits_along(model, InMemory(volume), patch_size, overlap, windows, mirror, volumes.device)), 1)
        for volume in volumes
    ])  # fmt: skip
