"""Numba kernels of state space duality, forward, and what backward shares (cpu_backward_kernels.py).

A work item is one sequence and some heads of one group: chunk after chunk, and in each head after head, so that what the heads
have in common (B, C and their products) is read while it is in the cache. A head's state lies in scratch as [S][P]: a row of
what it adds to the outputs is a sum of its rows.

    score_ij = M_ij alike_ij,    M_ij = E_ij weight_j before the row's own step (own_weight in it, or weight_j with E = 1),
    E_ij = 2 ** (total_i - total_j)

On the diagonal of the scores stands a head's skip weight too: what is multiplied by x takes it along. Running totals are two
floats each, `high` + `low`: their differences keep the digits that one float would lose.

Legend: N rows a chunk (n in the last), steps of `rank` rows, H heads of P, G groups, S states; addresses and strides in bytes. In
scratch rows of P, N and S are padded to whole vectors, `line`, `across` and `deep` bytes, and the numbers of rows N and S likewise,
with zeros.
"""

from __future__ import annotations

import numpy as np

from ..cpu.lane_math import ZERO, clear, get, put
from ..cpu.lane_shuffles import transpose
from ..cpu.lanes import (
    WIDTH,
    exp2,
    load,
    read_float,
    select_positive,
    splat,
    store,
    take_ticket,
    write_float,
)
from ..cpu.products import ROWS, add_product
from ..cpu.team import Kernel, inlined, record_at

ROW = 4 * WIDTH  # bytes of a vector
LEAST = np.float32(126)  # what is left of less than 2 ** -126 is nothing

# x, y, dy, dx: (k, rows, H, P); B, C: (k, rows, G, S), dB, dC: (splits, k, rows, G, S). high, low, weight, own, start, later:
# (k, chunks, H, N), end: (k, chunks, H); own is 0 where the own step's weight is no other. kept: (k, chunks, H, S, padded P).
# initial, final and their gradients: (k, H, P, S). dlog_decay, dweight, down: (k, steps, H). skip, dskip: (k, H). places: 0 to N-1.
_ADDRESSES = (
    "x B C high low weight own start later end skip places initial y final kept "
    "dy dfinal dx dlog_decay dweight down dskip dinitial dB dC scratch tickets slots"
)
_STRIDES = "x_batch x_row x_head dy_batch dy_row dy_head B_batch B_row B_group C_batch C_row C_group"
_SIZES = "batch rows heads P groups S chunks N rank steps splits line across deep items scratch_bytes"
RECORD = np.dtype([(name, np.int64) for name in f"{_ADDRESSES} {_STRIDES} {_SIZES}".split()])


@inlined
def item_heads(p, item):
    """Sequence, group, first and past-last head, and split of a work item."""
    split, group, each = item % p.splits, item // p.splits % p.groups, p.heads // p.groups
    first, last = group * each + split * each // p.splits, group * each + (split + 1) * each // p.splits
    return item // (p.splits * p.groups), group, first, last, split


@inlined
def gather_state(p, source, to):
    """(P, S) in memory -> [S][P]."""
    clear(to, p.S * p.line // 4)
    for i in range(p.P):
        for s in range(p.S):
            write_float(to + s * p.line + 4 * i, read_float(source + 4 * (i * p.S + s)))


@inlined
def scatter_state(p, source, to):
    """[S][P] -> (P, S) in memory."""
    for i in range(p.P):
        for s in range(p.S):
            write_float(to + 4 * (i * p.S + s), read_float(source + s * p.line + 4 * i))


@inlined
def scale(address, size, factor):
    """Multiply so many bytes of whole vectors."""
    factor = splat(factor)
    for at in range(address, address + size, ROW):
        store(at, load(at) * factor)


@inlined
def left(high, low, other_high, other_low):
    """E: 2 ** (total - other total), exactly 0 where that is no normal number."""
    between = (high - other_high) + (low - other_low)
    return select_positive(between + splat(LEAST), exp2(between), splat(ZERO))


@inlined
def padded_rows(source, row, columns, n, to, line, tall):
    """n rows of so many floats, to rows of whole vectors, zeros behind them up to `tall` rows."""
    for i in range(n):
        for c in range(0, columns, WIDTH):
            store(to + i * line + 4 * c, get(source + i * row + 4 * c, columns - c))
    clear(to + n * line, (tall - n) * line // 4)


@inlined
def read_keys(p, sequence, group, begin, n, scratch):
    """B, C and C_i . B_j, of the rows i and those that are not later, into scratch; the next free address."""
    tall, keys = p.across // 4, scratch
    queries = keys + tall * p.deep
    turned, alike = queries + tall * p.deep, queries + tall * p.deep + p.deep // 4 * p.across
    padded_rows(p.B + sequence * p.B_batch + begin * p.B_row + group * p.B_group, p.B_row, p.S, n, keys, p.deep, tall)
    padded_rows(
        p.C + sequence * p.C_batch + begin * p.C_row + group * p.C_group, p.C_row, p.S, n, queries, p.deep, tall
    )
    transpose(keys, p.deep, turned, p.across, tall, p.deep // 4)
    lower_products(p, queries, p.deep, turned, alike, n, p.S)
    return alike + tall * p.across


@inlined
def lower_products(p, a, a_row, b, to, n, depth):
    """to = a b, (n, n), of the rows i and the columns up to the end of their step at least; zeros further on."""
    clear(to, n * p.across // 4)
    for i in range(0, n, ROWS):
        count = min(ROWS, n - i)
        reach = min(n, ((i + count - 1) // p.rank + 1) * p.rank)
        add_product(a + i * a_row, a_row, 4, b, p.across, to + i * p.across, p.across, count, -(-reach // WIDTH), depth)


@inlined
def score_rows(p, decays, alike, skip, n, to):
    """Scores of a head's chunk, whose running totals and weights begin `decays` bytes after the first."""
    own = p.own if p.own != 0 else p.weight
    for i in range(n):
        bound = i // p.rank * p.rank
        last = bound + p.rank
        before = splat(np.float32(bound if p.own != 0 else last))
        high, low = splat(read_float(p.high + decays + 4 * i)), splat(read_float(p.low + decays + 4 * i))
        mine = splat(read_float(own + decays + 4 * i) if p.own != 0 else ZERO)
        row = to + i * p.across
        for j in range(0, n, WIDTH):
            m = splat(ZERO)
            if j < last:
                count, at = n - j, decays + 4 * j
                place = get(p.places + 4 * j, count)
                m = left(high, low, get(p.high + at, count), get(p.low + at, count)) * get(p.weight + at, count)
                inside = select_positive(splat(np.float32(last)) - place, mine, splat(ZERO))
                m = select_positive(before - place, m, inside) * load(alike + i * p.across + 4 * j)
            store(row + 4 * j, m)
        if p.skip != 0:
            write_float(row + 4 * i, read_float(row + 4 * i) + skip)


@inlined
def add_lower(p, scores, rows, to, n):
    """to += scores rows, (n, P), where no row's scores reach past its step."""
    for i in range(0, n, ROWS):
        count = min(ROWS, n - i)
        depth = min(n, ((i + count - 1) // p.rank + 1) * p.rank)
        add_product(
            scores + i * p.across, p.across, 4, rows, p.line, to + i * p.line, p.line, count, p.line // ROW, depth
        )


@inlined
def forward_chunk(p, sequence, head, chunk, state, keys, scratch):
    begin, tall = chunk * p.N, p.across // 4
    n, vectors, of_head = min(p.N, p.rows - begin), p.line // ROW, (sequence * p.chunks + chunk) * p.heads + head
    queries, alike = keys + tall * p.deep, keys + 2 * tall * p.deep + p.deep // 4 * p.across
    rows, scaled, out = scratch, scratch + tall * p.line, scratch + 2 * tall * p.line
    scores = scratch + 3 * tall * p.line
    decays = 4 * of_head * p.N
    if p.kept != 0:
        for at in range(0, p.S * p.line, ROW):
            store(p.kept + of_head * p.S * p.line + at, load(state + at))
    clear(out, n * p.line // 4)
    if chunk > 0 or p.initial != 0:
        add_product(queries, p.deep, 4, state, p.line, out, p.line, n, vectors, p.S)
        for i in range(n):
            scale(out + i * p.line, p.line, read_float(p.start + decays + 4 * i))
    padded_rows(p.x + sequence * p.x_batch + begin * p.x_row + head * p.x_head, p.x_row, p.P, n, rows, p.line, n)
    for i in range(n):
        left_over = splat(read_float(p.later + decays + 4 * i) * read_float(p.weight + decays + 4 * i))
        for at in range(i * p.line, (i + 1) * p.line, ROW):
            store(scaled + at, load(rows + at) * left_over)
    skip = read_float(p.skip + 4 * (sequence * p.heads + head)) if p.skip != 0 else ZERO
    score_rows(p, decays, alike, skip, n, scores)
    add_lower(p, scores, rows, out, n)
    y = p.y + 4 * ((sequence * p.rows + begin) * p.heads + head) * p.P
    for i in range(n):
        for c in range(0, p.P, WIDTH):
            put(y + 4 * (i * p.heads * p.P + c), load(out + i * p.line + 4 * c), p.P - c)
    scale(state, p.S * p.line, read_float(p.end + 4 * of_head))
    add_product(keys, 4, p.deep, scaled, p.line, state, p.line, p.S, vectors, n)


@inlined
def forward_item(p, item, scratch):
    sequence, group, first, last, _ = item_heads(p, item)
    size = p.S * p.line
    keys = scratch + (last - first) * size
    for head in range(first, last):
        state = scratch + (head - first) * size
        if p.initial != 0:
            gather_state(p, p.initial + 4 * (sequence * p.heads + head) * p.P * p.S, state)
        else:
            clear(state, size // 4)
    for chunk in range(p.chunks):
        begin = chunk * p.N
        free = read_keys(p, sequence, group, begin, min(p.N, p.rows - begin), keys)
        for head in range(first, last):
            forward_chunk(p, sequence, head, chunk, scratch + (head - first) * size, keys, free)
    for head in range(first, last):
        scatter_state(p, scratch + (head - first) * size, p.final + 4 * (sequence * p.heads + head) * p.P * p.S)


def forward_kernel(address):
    p = record_at(address, RECORD)
    scratch = p.scratch + take_ticket(p.slots) * p.scratch_bytes
    while True:
        item = take_ticket(p.tickets)
        if item >= p.items:
            break
        forward_item(p, item, scratch)


forward_duality = Kernel(forward_kernel, RECORD)
