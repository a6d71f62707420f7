"""Which of a run's validations counts as the best."""

from __future__ import annotations

import math


def is_best(value: float, best: float | None, direction: str) -> bool:
    """Whether a value is the best so far. Of equal ones the newer: weights that answer all of a validation set still learn.

    Args:
        value: just measured; NaN is never the best.
        best: the best before; None: there was none.
        direction: "max" or "min".
    """
    if math.isnan(value):
        return False
    return best is None or (value >= best if direction == "max" else value <= best)
