"""The beginning of a layer in a kernel of several layers: what the layer before said joins the residual, which is normalised."""

from __future__ import annotations

import numpy as np

from .dots import mean_square, numbers
from .lane_math import ONE, get, put
from .lanes import WIDTH, splat
from .team import inlined

# Addresses and sizes that a record has for it; x is where the normalised residual goes. norm_eps is a float64.
FIELDS = "hidden residual residual_after norm_w norm_half"


@inlined
def add_and_normalise(p, b):
    """Sequence b: residual_after = hidden + residual (none at address 0), x = RMSNorm(residual_after)."""
    row = 4 * b * p.M
    for c in range(0, p.M, WIDTH):
        v = get(p.hidden + row + 4 * c, p.M - c)
        if p.residual != 0:
            v = v + get(p.residual + row + 4 * c, p.M - c)
        put(p.residual_after + row + 4 * c, v, p.M - c)
    scale = ONE / np.sqrt(mean_square(p.residual_after + row, p.M) + np.float32(p.norm_eps))
    for c in range(0, p.M, WIDTH):
        v = get(p.residual_after + row + 4 * c, p.M - c) * splat(scale)
        put(p.x + row + 4 * c, v * numbers(p.norm_w, c, p.M - c, p.norm_half), p.M - c)
