"""Numba kernels of what rows of a chunk say to one another: decays, weights and what the rows have in common, in one pass.

    score_ij = M_ij alike_ij,    M_ij = E_ij weight_j before the row's own step (own_weight in it, or weight_j with E = 1),
    E_ij = 2 ** (total_i - total_j)

On the diagonal of the scores stands a head's skip weight too: what is multiplied by x takes it along.

A work item is one head of one sequence. Running totals are two floats each, `high` + `low`: their differences keep the digits
that one float would lose. Legend: n rows (Q steps of `rank`), H heads, G groups; addresses and strides in bytes.
"""

from __future__ import annotations

import numpy as np

from ..cpu.lane_math import ZERO, get, put
from ..cpu.lanes import WIDTH, exp2, fma, read_float, select_positive, splat, sum_lanes, take_ticket, write_float
from ..cpu.team import Kernel, inlined, record_at

# high, low, weight, own: (k, H, n), the first two axes walked; own is 0 where the own step's weight is no other.
# alike: (k, G, n, n). scores, dscores: (k, H, n, n). places: (n,), 0, 1, 2, … heard: (k, H, n). passed, owned: (k, H, Q).
# skip, skipped: (k, H).
FIELDS = (
    "high low weight own skip alike scores dscores places heard passed owned skipped sequence head own_sequence own_head heads "
    "groups rows rank items tickets"
)
RECORD = np.dtype([(name, np.int64) for name in FIELDS.split()])
TICKETS = RECORD.fields["tickets"][1]
LEAST = np.float32(126)  # what is left of less than 2 ** -126 is nothing


@inlined
def left(high, low, other_high, other_low):
    """E: 2 ** (total - other total), exactly 0 where that is no normal number."""
    between = (high - other_high) + (low - other_low)
    return select_positive(between + splat(LEAST), exp2(between), splat(ZERO))


@inlined
def score_rows(p, item):
    sequence, head = item // p.heads, item % p.heads
    start = sequence * p.sequence + head * p.head
    own = p.own + sequence * p.own_sequence + head * p.own_head
    square, row = 4 * p.rows * p.rows, 4 * p.rows
    alike = p.alike + (sequence * p.groups + head // (p.heads // p.groups)) * square
    for i in range(p.rows):
        bound = i // p.rank * p.rank
        last = bound + p.rank
        before = splat(np.float32(bound if p.own != 0 else last))
        high, low = splat(read_float(p.high + start + 4 * i)), splat(read_float(p.low + start + 4 * i))
        mine = splat(read_float(own + 4 * i) if p.own != 0 else ZERO)
        to = p.scores + item * square + i * row
        for j in range(0, p.rows, WIDTH):
            m = splat(ZERO)
            if j < last:
                count, at = p.rows - j, start + 4 * j
                place = get(p.places + 4 * j, count)
                m = left(high, low, get(p.high + at, count), get(p.low + at, count)) * get(p.weight + at, count)
                inside = select_positive(splat(np.float32(last)) - place, mine, splat(ZERO))
                m = select_positive(before - place, m, inside) * get(alike + i * row + 4 * j, count)
            put(to + 4 * j, m, p.rows - j)
        if p.skip != 0:
            write_float(to + 4 * i, read_float(to + 4 * i) + read_float(p.skip + 4 * item))


@inlined
def gradient_rows(p, item):
    """From dscores to dscores * M in its place; scores; and, from the last row to the first, sums over rows.

    heard: of dM E over the rows i, for every j, the gradient of its weight. passed: the gradient of each step's decay, which lies
    between the rows j before it and the rows i from it on. owned, skipped: those of each own weight and of the skip weight.
    """
    sequence, head = item // p.heads, item % p.heads
    start = sequence * p.sequence + head * p.head
    own = p.own + sequence * p.own_sequence + head * p.own_head
    square, row, steps = 4 * p.rows * p.rows, 4 * p.rows, p.rows // p.rank
    alike = p.alike + (sequence * p.groups + head // (p.heads // p.groups)) * square
    heard = p.heard + item * row
    owned, skipped = splat(ZERO), ZERO
    for i in range(p.rows - 1, -1, -1):
        bound = i // p.rank * p.rank
        last = bound + p.rank
        before, until = splat(np.float32(bound if p.own != 0 else last)), splat(np.float32(last))
        high, low = splat(read_float(p.high + start + 4 * i)), splat(read_float(p.low + start + 4 * i))
        mine = splat(read_float(own + 4 * i) if p.own != 0 else ZERO)
        at = item * square + i * row
        skipped += read_float(p.dscores + at + 4 * i)
        for j in range(0, p.rows, WIDTH):
            count = p.rows - j
            score, told = splat(ZERO), splat(ZERO)
            if j < last:
                other = start + 4 * j
                place = get(p.places + 4 * j, count)
                e = left(high, low, get(p.high + other, count), get(p.low + other, count))
                e = select_positive(before - place, e, splat(ZERO))  # of rows to come it may be infinite
                a, d = get(alike + i * row + 4 * j, count), get(p.dscores + at + 4 * j, count)
                inside = select_positive(until - place, mine, splat(ZERO))
                m = select_positive(before - place, e * get(p.weight + other, count), inside)
                score, told = m * a, select_positive(until - place, d * m, splat(ZERO))
                both = select_positive(until - place, d * a, splat(ZERO))
                earlier = select_positive(before - place, both, splat(ZERO))
                put(heard + 4 * j, fma(earlier, e, get(heard + 4 * j, count)), count)
                if p.own != 0:
                    owned = owned + (both - earlier)
            put(p.scores + at + 4 * j, score, count)
            put(p.dscores + at + 4 * j, told, count)
        if p.skip != 0:
            write_float(p.scores + at + 4 * i, read_float(p.scores + at + 4 * i) + read_float(p.skip + 4 * item))
        if i == bound:
            total = splat(ZERO)
            for j in range(0, bound, WIDTH):
                count = min(p.rows, bound) - j
                total = fma(get(p.weight + start + 4 * j, count), get(heard + 4 * j, count), total)
            step = 4 * (item * steps + i // p.rank)
            write_float(p.passed + step, sum_lanes(total))
            if p.own != 0:
                write_float(p.owned + step, sum_lanes(owned))
                owned = splat(ZERO)
    write_float(p.skipped + 4 * item, skipped)


def score_kernel(address):
    p = record_at(address, RECORD)
    while True:
        item = take_ticket(address + TICKETS)
        if item >= p.items:
            break
        score_rows(p, item)


def gradient_kernel(address):
    p = record_at(address, RECORD)
    while True:
        item = take_ticket(address + TICKETS)
        if item >= p.items:
            break
        gradient_rows(p, item)


scores, score_gradients = Kernel(score_kernel, RECORD), Kernel(gradient_kernel, RECORD)
