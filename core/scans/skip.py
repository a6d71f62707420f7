"""The skipping (atrous) scan: several paths, each over every n-th token, that share the grid between them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from ..errors import UserError, say_once
from .path import Path, axis_orders, numbered

MOST_PATHS = 1024  # each may have parameters of its own


def skip(sizes: Sequence[int], step: int = 2) -> list[Path]:
    """One path for each offset below `step` along the axes; every token is on exactly one of them.

    Offsets count up along the first axis first, and paths alternate between the loop orders (row-major, column-major).
    With step 2 these are the four paths of EfficientVMamba's ES2D; borders are cut where it pads. The number
    of paths does not depend on the grid: of a grid smaller than the step, each token is a path, and the others are empty.
    """
    if step ** len(sizes) > MOST_PATHS:
        raise UserError(
            "This step makes too many paths.", given=f"step={step}",
            allowed=f"1 to {int(MOST_PATHS ** (1 / len(sizes)))}", do="Set scan.step=2.",
        )  # fmt: skip
    if min(sizes) > 0 and step > max(sizes):
        grid = "×".join(map(str, sizes))
        say_once(f"scan step={step} is larger than a grid of {grid}: there no path has a second token", ("step", step))
    axes = axis_orders(len(sizes))
    paths = []
    for k, offsets in enumerate(itertools.product(range(step), repeat=len(sizes))):
        every = tuple(slice(offset, None, step) for offset in reversed(offsets))
        paths.append(Path(numbered(sizes)[every].transpose(axes[k % len(axes)]).ravel()))
    return paths


def steps(sizes: Sequence[int], step: int = 2) -> int:
    """Grid tokens on the longest path, that of offset 0."""
    return math.prod((size + step - 1) // step for size in sizes)
