"""Numba kernel of the scan over one token: one work item is a range of channels of one sequence.

Lanes are channels for the step size and the gate, and states for the recurrence, as they lie in memory. Addresses are in
bytes, strides in elements.
"""

from __future__ import annotations

import numpy as np

from ..cpu.lane_math import LOG2_E, ZERO, get, put, sigmoid, softplus
from ..cpu.lanes import WIDTH, exp2, fma, read_float, splat, sum_lanes, take_ticket, write_float
from ..cpu.team import Kernel, inlined, record_at

FIELDS = """x delta A B C D z bias state out after x_batch delta_batch B_batch C_batch z_batch batch channels N softplus items
tickets"""
RECORD = np.dtype([(name, np.int64) for name in FIELDS.split()])
TICKETS = RECORD.fields["tickets"][1]
ROW = 4 * WIDTH


@inlined
def recurrence(A, state, after, B, C, N, d, du):
    """One channel: the new state in memory; returns C h."""
    y, rate = splat(ZERO), splat(d * LOG2_E)
    for n in range(0, N, WIDTH):
        count = N - n
        h = splat(du) * get(B + 4 * n, count)
        if state != 0:
            h = fma(exp2(rate * get(A + 4 * n, count)), get(state + 4 * n, count), h)
        put(after + 4 * n, h, count)
        y = fma(get(C + 4 * n, count), h, y)
    return sum_lanes(y)


@inlined
def block(p, b, c, count):
    """One block of channels: step sizes wait in the output's row until each has become an output."""
    x = p.x + 4 * (b * p.x_batch + c)
    out = p.out + 4 * (b * p.channels + c)
    d = get(p.delta + 4 * (b * p.delta_batch + c), count)
    if p.bias != 0:
        d = d + get(p.bias + 4 * c, count)
    if p.softplus != 0:
        d = softplus(d)
    put(out, d, count)
    B, C = p.B + 4 * b * p.B_batch, p.C + 4 * b * p.C_batch
    for lane in range(count):
        step = read_float(out + 4 * lane)
        here = 4 * (b * p.channels + c + lane) * p.N
        state = p.state + here if p.state != 0 else np.int64(0)
        A = p.A + 4 * (c + lane) * p.N
        y = recurrence(A, state, p.after + here, B, C, p.N, step, step * read_float(x + 4 * lane))
        write_float(out + 4 * lane, y)
    y = get(out, count)
    if p.D != 0:
        y = fma(get(p.D + 4 * c, count), get(x, count), y)
    if p.z != 0:
        z = get(p.z + 4 * (b * p.z_batch + c), count)
        y = y * z * sigmoid(z)
    put(out, y, count)


def kernel(address):
    p = record_at(address, RECORD)
    ranges = p.items // p.batch
    blocks = (p.channels + WIDTH - 1) // WIDTH
    each = (blocks + ranges - 1) // ranges
    while True:
        item = take_ticket(address + TICKETS)
        if item >= p.items:
            break
        b, first = item // ranges, (item % ranges) * each
        for j in range(first, min(first + each, blocks)):
            block(p, b, j * WIDTH, min(WIDTH, p.channels - j * WIDTH))


update_state = Kernel(kernel, RECORD)
