"""Numba kernels of a few rows times a matrix: the matrix streams through once, row after row, as it lies in memory.

A work item is a range of the matrix's rows. Addresses are in bytes; a matrix row is a multiple of WIDTH elements long, with
bfloat16 of 2 WIDTH. For bfloat16 each row of x holds its even elements first, then its odd ones.
"""

from __future__ import annotations

import numpy as np

from ..lane_math import ZERO
from ..lanes import (
    WIDTH,
    fma,
    load,
    load_even_bfloat16,
    load_odd_bfloat16,
    read_float,
    splat,
    sum_lanes,
    take_ticket,
    write_float,
)  # fmt: skip
from ..team import Kernel, inlined, record_at

FIELDS = "x weight bias out rows inputs outputs each items tickets"
RECORD = np.dtype([(name, np.int64) for name in FIELDS.split()])
TICKETS = RECORD.fields["tickets"][1]
ROW = 4 * WIDTH


@inlined
def dot_float32(x, weight, inputs):
    a, b, c, d = splat(ZERO), splat(ZERO), splat(ZERO), splat(ZERO)
    blocks = inputs // WIDTH
    for _ in range(blocks // 4):
        a = fma(load(weight), load(x), a)
        b = fma(load(weight + ROW), load(x + ROW), b)
        c = fma(load(weight + 2 * ROW), load(x + 2 * ROW), c)
        d = fma(load(weight + 3 * ROW), load(x + 3 * ROW), d)
        weight += 4 * ROW
        x += 4 * ROW
    for _ in range(blocks % 4):
        a = fma(load(weight), load(x), a)
        weight += ROW
        x += ROW
    return sum_lanes((a + b) + (c + d))


@inlined
def dot_bfloat16(x, weight, inputs):
    a, b, c, d = splat(ZERO), splat(ZERO), splat(ZERO), splat(ZERO)
    odd = x + 2 * inputs
    blocks = inputs // (2 * WIDTH)
    for _ in range(blocks // 2):
        a = fma(load_even_bfloat16(weight), load(x), a)
        b = fma(load_odd_bfloat16(weight), load(odd), b)
        c = fma(load_even_bfloat16(weight + ROW), load(x + ROW), c)
        d = fma(load_odd_bfloat16(weight + ROW), load(odd + ROW), d)
        weight += 2 * ROW
        x += 2 * ROW
        odd += 2 * ROW
    if blocks % 2 != 0:
        a = fma(load_even_bfloat16(weight), load(x), a)
        b = fma(load_odd_bfloat16(weight), load(odd), b)
    return sum_lanes((a + b) + (c + d))


def product(dot, size):
    """The kernel of a matrix whose elements are `size` bytes."""

    def kernel(address):
        p = record_at(address, RECORD)
        while True:
            item = take_ticket(address + TICKETS)
            if item >= p.items:
                break
            for output in range(item * p.each, min((item + 1) * p.each, p.outputs)):
                start = ZERO
                if p.bias != 0:
                    start = read_float(p.bias + 4 * output)
                for row in range(p.rows):
                    y = dot(p.x + 4 * row * p.inputs, p.weight + output * p.inputs * size, p.inputs)
                    write_float(p.out + 4 * (row * p.outputs + output), start + y)

    return kernel


multiply_float32, multiply_bfloat16 = Kernel(product(dot_float32, 4)), Kernel(product(dot_bfloat16, 2))
