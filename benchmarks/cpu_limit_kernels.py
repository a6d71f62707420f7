"""Numba kernel that does nothing but exponentials: how many a processor can do."""

from __future__ import annotations

import numpy as np

from ..core.ops.cpu.lanes import WIDTH, exp2, load, store, take_ticket
from ..core.ops.cpu.team import Kernel, record_at

RECORD = np.dtype([(name, np.int64) for name in ("x", "out", "items", "tickets")])
TICKETS = RECORD.fields["tickets"][1]
# An item takes so many vectors, none of which waits for another, so many times.
VECTORS, TIMES = 32, 64
PER_ITEM = WIDTH * VECTORS * TIMES


def kernel(address):
    p = record_at(address, RECORD)
    while True:
        item = take_ticket(address + TICKETS)
        if item >= p.items:
            break
        row = 4 * WIDTH * VECTORS * item
        for _ in range(TIMES):
            for vector in range(VECTORS):
                at = row + 4 * WIDTH * vector
                store(p.out + at, exp2(load(p.x + at)))


exponentials = Kernel(kernel, RECORD)
