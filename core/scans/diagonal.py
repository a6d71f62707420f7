"""Scans along the diagonals of an image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .path import Path


def diagonal(sizes: Sequence[int]) -> list[Path]:
    """Diagonals downwards to the right, diagonals downwards to the left, then the reverse of each.

    A diagonal ends at the border; RS-Mamba's code carries it on at the opposite side.
    """
    rows, columns = np.indices(sizes)
    forward = [Path(np.lexsort((rows.ravel(), key.ravel()))) for key in (columns - rows, columns + rows)]
    return forward + [path.reversed() for path in forward]
