"""A segmented volume on another grid, a few planes at a time, and the class that several networks find likeliest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

FINER = {1: "linear", 2: "bilinear"}  # by the axes of a plane


def on_grid(planes: Iterable[Tensor], count: int, sizes: Sequence[int]) -> Iterator[Tensor]:
    """Planes of another grid, (classes, *sizes[1:]), linear between voxel centres.

    Args:
        planes: (classes, *own sizes[1:]), in order. count: how many they are.
        sizes: of the other grid.
    """
    planes, known = iter(planes), {}
    for number in range(sizes[0]):
        place = max((number + 0.5) * count / sizes[0] - 0.5, 0.0)
        low = min(int(place), count - 1)
        high = min(low + 1, count - 1)
        while high not in known:
            last = max(known, default=-1)
            known = {at: plane for at, plane in known.items() if at >= low}
            known[last + 1] = _plane(next(planes), sizes[1:])
        yield known[high] if low == high else torch.lerp(known[low], known[high], place - low)


def _plane(plane: Tensor, sizes: Sequence[int]) -> Tensor:
    if tuple(plane.shape[1:]) == tuple(sizes):
        return plane
    return F.interpolate(plane[None], size=tuple(sizes), mode=FINER[len(sizes)])[0]


def likeliest(members: Sequence[Iterable[Tensor]], sizes: Sequence[int]) -> np.ndarray:
    """The class with the highest mean probability at each voxel, uint8 (*sizes).

    Args:
        members: of each network the probabilities of the planes in order, (classes, *sizes[1:]).
    """
    found = np.empty(tuple(sizes), np.uint8)
    for number, planes in enumerate(zip(*members, strict=True)):
        found[number] = sum(planes).argmax(0).to(torch.uint8).cpu().numpy()
    return found
