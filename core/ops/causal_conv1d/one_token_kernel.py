"""Numba kernel of the convolution at one token. Addresses are in bytes, strides in elements."""

from __future__ import annotations

import numpy as np

from ..lane_math import ZERO, get, put, sigmoid
from ..lanes import WIDTH, read_float, write_float
from ..team import Kernel, inlined, record_at

FIELDS = "x weight bias state out after x_batch batch channels W silu"
RECORD = np.dtype([(name, np.int64) for name in FIELDS.split()])


@inlined
def channel(p, b, c):
    """The output before activation, and the state's row moved on by one."""
    past = p.W - 1
    weight, here = p.weight + 4 * c * p.W, 4 * (b * p.channels + c) * past
    now = read_float(p.x + 4 * (b * p.x_batch + c))
    y = now * read_float(weight + 4 * past)
    if p.bias != 0:
        y += read_float(p.bias + 4 * c)
    for i in range(past):
        before = ZERO
        if p.state != 0:
            before = read_float(p.state + here + 4 * i)
        y += before * read_float(weight + 4 * i)
        if i > 0:
            write_float(p.after + here + 4 * (i - 1), before)
    if past > 0:
        write_float(p.after + here + 4 * (past - 1), now)
    write_float(p.out + 4 * (b * p.channels + c), y)


def kernel(address):
    p = record_at(address, RECORD)
    for b in range(p.batch):
        for c in range(p.channels):
            channel(p, b, c)
        if p.silu != 0:
            for c in range(0, p.channels, WIDTH):
                out = p.out + 4 * (b * p.channels + c)
                y = get(out, p.channels - c)
                put(out, y * sigmoid(y), p.channels - c)


convolve = Kernel(kernel)
