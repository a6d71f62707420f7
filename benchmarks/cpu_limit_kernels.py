"""Numba kernels that do nothing but exponentials, or but multiplications with an addition: how many a processor can do."""

from __future__ import annotations

import numpy as np

from ..core.ops.cpu.lanes import WIDTH, exp2, fma, load, store, take_ticket
from ..core.ops.cpu.team import Kernel, record_at

RECORD = np.dtype([(name, np.int64) for name in ("x", "out", "items", "tickets")])
TICKETS = RECORD.fields["tickets"][1]
# An item takes so many vectors, none of which waits for another, so many times.
VECTORS, TIMES = 32, 64
PER_ITEM = WIDTH * VECTORS * TIMES


def exponentials_kernel(address):
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


def multiply_adds_kernel(address):
    """As many as exponentials_kernel's, eight chains of them, so that none waits for another and all stay in registers."""
    p = record_at(address, RECORD)
    while True:
        item = take_ticket(address + TICKETS)
        if item >= p.items:
            break
        at = p.x + 4 * WIDTH * VECTORS * item
        x, y = load(at), load(at + 4 * WIDTH)
        a, b, c, d, e, f, g, h = x, x, x, x, x, x, x, x
        for _ in range(TIMES * VECTORS // 8):
            a, b, c, d = fma(a, x, y), fma(b, x, y), fma(c, x, y), fma(d, x, y)
            e, f, g, h = fma(e, x, y), fma(f, x, y), fma(g, x, y), fma(h, x, y)
        store(p.out + 4 * WIDTH * VECTORS * item, a + b + c + d + e + f + g + h)


exponentials = Kernel(exponentials_kernel, RECORD)
multiply_adds = Kernel(multiply_adds_kernel, RECORD)
