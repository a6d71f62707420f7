"""Numba kernel of the convolution at one token: in place of each sequence's row, as token_convolution.py says."""

from __future__ import annotations

import numpy as np

from ..cpu.team import Kernel, record_at
from ..cpu.token_convolution import convolve

FIELDS = "row conv_w conv_b conv_state conv_after batch channels W K half silu"
RECORD = np.dtype([(name, np.int64) for name in FIELDS.split()])


def kernel(address):
    p = record_at(address, RECORD)
    for b in range(p.batch):
        convolve(p, b, p.channels, p.row + 4 * b * p.channels, 0, p.channels, p.silu)


convolve_rows = Kernel(kernel, RECORD)
