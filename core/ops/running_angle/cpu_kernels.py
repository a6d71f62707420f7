"""Numba kernels of the running angle: one work item is a block of angles of one sequence. Addresses in bytes.

A total is the sum of two floats, high and low, and what rounding takes from the one goes to the other (Knuth's two-sum), so that
nothing is lost in a million steps; whole turns are taken off in three parts.
"""

from __future__ import annotations

import math

import numpy as np

from ..cpu.lane_math import ZERO, get, put
from ..cpu.lanes import WIDTH, fma, read_float, select_positive, splat, take_ticket
from ..cpu.team import Kernel, inlined, record_at

FULL_TURN, PER_TURN = np.float32(2 * math.pi), np.float32(1 / (2 * math.pi))
# Two of so few bits that their multiples are exact, and the rest.
TURN_A, TURN_B = np.float32(6.28125), np.float32(round((2 * math.pi - 6.28125) * 2**21) / 2**21)
TURN_C = np.float32(2 * math.pi - float(TURN_A) - float(TURN_B))
ROUND = np.float32(1.5 * 2**23)  # added and taken away again: the nearest whole number

INTEGERS = "given out initial goes_on steps count blocks items tickets"
RECORD = np.dtype([(name, np.int64) for name in INTEGERS.split()])
TICKETS = RECORD.fields["tickets"][1]


@inlined
def added(high, low, value):
    """The two floats after another number."""
    total = high + value
    part = total - high
    low = low + ((high - (total - part)) + (value - part))
    high = total + low
    return high, low - (high - total)


@inlined
def angles(p, sequence, c):
    count, row = p.count - c, 4 * p.count
    at = 4 * (sequence * p.steps * p.count + c)
    high = get(p.initial + 4 * (sequence * p.count + c), count) if p.initial != 0 else splat(ZERO)
    low = splat(ZERO)
    for step in range(p.steps):
        if p.goes_on != 0:
            on = splat(read_float(p.goes_on + 4 * (sequence * p.steps + step)))
            high, low = select_positive(on, high, splat(ZERO)), select_positive(on, low, splat(ZERO))
        high, low = added(high, low, get(p.given + at, count))
        turns = splat(ZERO) - ((high * splat(PER_TURN) + splat(ROUND)) - splat(ROUND))
        high = fma(turns, splat(TURN_A), high)
        low = fma(turns, splat(TURN_C), low)
        high, low = added(high, low, turns * splat(TURN_B))
        angle = high + low
        put(p.out + at, select_positive(splat(ZERO) - angle, angle + splat(FULL_TURN), angle), count)
        at += row


@inlined
def sums_since(p, sequence, c):
    count, row = p.count - c, 4 * p.count
    at = 4 * ((sequence * p.steps + p.steps - 1) * p.count + c)
    high, low = splat(ZERO), splat(ZERO)
    for step in range(p.steps - 1, -1, -1):
        high, low = added(high, low, get(p.given + at, count))
        put(p.out + at, high + low, count)
        if p.goes_on != 0:
            on = splat(read_float(p.goes_on + 4 * (sequence * p.steps + step)))
            high, low = select_positive(on, high, splat(ZERO)), select_positive(on, low, splat(ZERO))
        at -= row
    put(p.initial + 4 * (sequence * p.count + c), high + low, count)


def angle(address):
    p = record_at(address, RECORD)
    while True:
        item = take_ticket(address + TICKETS)
        if item >= p.items:
            break
        angles(p, item // p.blocks, WIDTH * (item % p.blocks))


def since(address):
    p = record_at(address, RECORD)
    while True:
        item = take_ticket(address + TICKETS)
        if item >= p.items:
            break
        sums_since(p, item // p.blocks, WIDTH * (item % p.blocks))


angle_kernel, since_kernel = Kernel(angle, RECORD), Kernel(since, RECORD)
