"""What the kernels of the causal convolution share: their record, and which token stands at a step.

Sizes: W taps, K steps a chunk, WIDTH lanes = as many channels = one block. All addresses and strides are in bytes.
"""

from __future__ import annotations

import numpy as np

from ..cpu.lanes import WIDTH, read_int
from ..cpu.team import inlined

K = 16
ROW = 4 * WIDTH

_ADDRESSES = (
    "x weight bias order seq initial out final grad_out grad_final dx dweight dbias dinitial scratch tickets slots"
)
_STRIDES = (
    "x_batch x_path x_token order_batch order_path out_batch out_path grad_batch grad_path grad_token "
    "dx_batch dx_path dx_token"
)
_SIZES = "batch paths length steps channels W splits blocks silu scratch_bytes items"
RECORD = np.dtype([(name, np.int64) for name in f"{_ADDRESSES} {_STRIDES} {_SIZES}".split()])


@inlined
def token_at(p, b, path, step):
    """The token visited at a step, -1 outside the path."""
    if step < 0 or step >= p.steps:
        return np.int64(-1)
    if p.order == 0:
        return np.int64(step)
    return np.int64(read_int(p.order + b * p.order_batch + path * p.order_path + 4 * step))
