"""Numba kernel of state space duality, backward: the last chunk first, from the states that forward kept at the chunks' starts.

Work items, sizes and what lies where: cpu_kernels.py. What heads share has gradients that are summed over the heads of an item
here, and over the items of a group afterwards: in scratch first: dalike of C B^T, and dB and dC as [S][N].
"""

from __future__ import annotations

import numpy as np

from ..cpu.lane_math import ZERO, clear, get, put
from ..cpu.lane_shuffles import transpose
from ..cpu.lanes import (
    WIDTH,
    fma,
    load,
    read_float,
    select_positive,
    splat,
    store,
    sum_lanes,
    take_ticket,
    write_float,
)
from ..cpu.products import ROWS, add_product
from ..cpu.team import Kernel, inlined, record_at
from .cpu_kernels import (
    RECORD,
    ROW,
    gather_state,
    item_heads,
    left,
    lower_products,
    padded_rows,
    read_keys,
    scale,
    scatter_state,
)


@inlined
def gradient_rows(p, decays, alike, skip, n, scores, dscores, heard, passed, down):
    """From dscores to dscores * M in its place; scores; and, from the last row to the first, sums over rows.

    heard: of dM E over the rows i, for every j, the gradient of its weight. passed: the gradient of each step's decay, which lies
    between the rows j before it and the rows i from it on. down: those of each own weight. Returns that of the skip weight.
    """
    own = p.own if p.own != 0 else p.weight
    owned, skipped = splat(ZERO), ZERO
    clear(heard, n)
    for i in range(n - 1, -1, -1):
        bound = i // p.rank * p.rank
        last = bound + p.rank
        before, until = splat(np.float32(bound if p.own != 0 else last)), splat(np.float32(last))
        high, low = splat(read_float(p.high + decays + 4 * i)), splat(read_float(p.low + decays + 4 * i))
        mine = splat(read_float(own + decays + 4 * i) if p.own != 0 else ZERO)
        at = i * p.across
        skipped += read_float(dscores + at + 4 * i)
        for j in range(0, n, WIDTH):
            count = n - j
            score, told = splat(ZERO), splat(ZERO)
            if j < last:
                other = decays + 4 * j
                place = get(p.places + 4 * j, count)
                e = left(high, low, get(p.high + other, count), get(p.low + other, count))
                e = select_positive(before - place, e, splat(ZERO))  # of rows to come it may be infinite
                a, d = load(alike + at + 4 * j), get(dscores + at + 4 * j, count)
                inside = select_positive(until - place, mine, splat(ZERO))
                m = select_positive(before - place, e * get(p.weight + other, count), inside)
                score, told = m * a, select_positive(until - place, d * m, splat(ZERO))
                both = select_positive(until - place, d * a, splat(ZERO))
                earlier = select_positive(before - place, both, splat(ZERO))
                put(heard + 4 * j, fma(earlier, e, get(heard + 4 * j, count)), count)
                if p.own != 0:
                    owned = owned + (both - earlier)
            store(scores + at + 4 * j, score)
            store(dscores + at + 4 * j, told)
        if p.skip != 0:
            write_float(scores + at + 4 * i, read_float(scores + at + 4 * i) + skip)
        if i == bound:
            total = splat(ZERO)
            for j in range(0, bound, WIDTH):
                count = bound - j
                total = fma(get(p.weight + decays + 4 * j, count), get(heard + 4 * j, count), total)
            write_float(passed + 4 * (i // p.rank), sum_lanes(total))
            if p.own != 0:
                write_float(down + 4 * (i // p.rank) * p.heads, sum_lanes(owned))
                owned = splat(ZERO)
    return skipped


@inlined
def dot(a, b, size):
    """Of so many bytes of whole vectors."""
    total = splat(ZERO)
    for at in range(0, size, ROW):
        total = fma(load(a + at), load(b + at), total)
    return sum_lanes(total)


@inlined
def within_chunk(p, alike, decays, skip, n, across_x, rows_dy, told, scores, heard, passed, down, dalike):
    """What the chunk's rows say to one another: dx in `told`, the scores' gradients added to dalike; that of the skip weight."""
    dscores = scores + p.across // 4 * p.across
    lower_products(p, rows_dy, p.line, across_x, dscores, n, p.P)
    skipped = gradient_rows(p, decays, alike, skip, n, scores, dscores, heard, passed, down)
    clear(told, n * p.line // 4)
    for j in range(0, n, ROWS):
        count, since = min(ROWS, n - j), j // p.rank * p.rank
        add_product(
            scores + 4 * j + since * p.across, 4, p.across, rows_dy + since * p.line, p.line, told + j * p.line, p.line, count,
            p.line // ROW, n - since,
        )  # fmt: skip
    for at in range(0, n * p.across, ROW):
        store(dalike + at, load(dalike + at) + load(dscores + at))
    return skipped


@inlined
def through_end(p, keys, decays, n, rows_x, across_x, dstate, told, heard_of, share, dB):
    """Through the state at the chunk's end: added to dx in `told`, to dB; share: of each row's part in the state."""
    clear(heard_of, n * p.line // 4)
    add_product(keys, p.deep, 4, dstate, p.line, heard_of, p.line, n, p.line // ROW, p.S)
    for i in range(n):
        left_over = splat(read_float(p.later + decays + 4 * i) * read_float(p.weight + decays + 4 * i))
        write_float(share + 4 * i, dot(heard_of + i * p.line, rows_x + i * p.line, p.line))
        for at in range(i * p.line, (i + 1) * p.line, ROW):
            store(told + at, fma(load(heard_of + at), left_over, load(told + at)))
    for c in range(p.P):
        for i in range(0, n, WIDTH):
            at = across_x + c * p.across + 4 * i
            store(at, load(at) * get(p.later + decays + 4 * i, n - i) * get(p.weight + decays + 4 * i, n - i))
    add_product(dstate, p.line, 4, across_x, p.across, dB, p.across, p.S, p.across // ROW, p.P)


@inlined
def through_start(p, queries, decays, n, state, end, rows_dy, dstate, across_dy, read, share, dC):
    """Through the state at the chunk's start (address 0: none): dstate becomes that state's, dC is added to; share: of each row."""
    for i in range(n):
        scale(rows_dy + i * p.line, p.line, read_float(p.start + decays + 4 * i))
    scale(dstate, p.S * p.line, end)
    add_product(queries, 4, p.deep, rows_dy, p.line, dstate, p.line, p.S, p.line // ROW, n)
    if state == 0:
        return
    clear(read, n * p.line // 4)
    add_product(queries, p.deep, 4, state, p.line, read, p.line, n, p.line // ROW, p.S)
    for i in range(n):
        write_float(share + 4 * i, dot(rows_dy + i * p.line, read + i * p.line, p.line))
    transpose(rows_dy, p.line, across_dy, p.across, p.across // 4, p.line // 4)
    add_product(state, p.line, 4, across_dy, p.across, dC, p.across, p.S, p.across // ROW, p.P)


@inlined
def write_steps(p, decays, n, heard, passed, ending, starting, carried, dlog_decay, dweight):
    """Gradients of every step's decay and weight, of what its rows say within the chunk, through its end and its start."""
    since = ZERO
    for i in range(n - 1, -1, -1):
        since += read_float(starting + 4 * i)
        if i % p.rank == 0:
            at = passed + 4 * (i // p.rank)
            write_float(at, read_float(at) + since)
    for step in range(n // p.rank):
        total, ended = ZERO, ZERO
        for i in range(step * p.rank, (step + 1) * p.rank):
            later, share = read_float(p.later + decays + 4 * i), read_float(ending + 4 * i)
            total += read_float(heard + 4 * i) + share * later
            ended += share * later * read_float(p.weight + decays + 4 * i)
        write_float(dweight + 4 * step * p.heads, total)
        write_float(dlog_decay + 4 * step * p.heads, read_float(passed + 4 * step) + carried)
        carried += ended


@inlined
def backward_chunk(p, sequence, head, chunk, dstate, keys, shared, scratch):
    """One head of a chunk; keys: where `read_keys` has put them, shared: dalike, dB and dC."""
    begin, of_head, tall = chunk * p.N, (sequence * p.chunks + chunk) * p.heads + head, p.across // 4
    n, decays, lines, square = min(p.N, p.rows - begin), 4 * of_head * p.N, tall * p.line, tall * p.across
    state = p.kept + of_head * p.S * p.line if chunk > 0 or p.initial != 0 else np.int64(0)
    queries, alike = keys + tall * p.deep, keys + 2 * tall * p.deep + p.deep // 4 * p.across
    dB = shared + square
    dC = dB + p.deep // 4 * p.across
    across_x, rows_x = scratch, scratch + p.line // 4 * p.across
    rows_dy, told, other, scores = rows_x + lines, rows_x + 2 * lines, rows_x + 3 * lines, rows_x + 4 * lines
    heard = scores + 2 * square
    passed, ending, starting = heard + p.across, heard + 2 * p.across, heard + 3 * p.across
    step = 4 * ((sequence * p.steps + begin // p.rank) * p.heads + head)
    of_skip = 4 * (sequence * p.heads + head)
    skip = read_float(p.skip + of_skip) if p.skip != 0 else ZERO

    padded_rows(p.x + sequence * p.x_batch + begin * p.x_row + head * p.x_head, p.x_row, p.P, n, rows_x, p.line, tall)
    padded_rows(
        p.dy + sequence * p.dy_batch + begin * p.dy_row + head * p.dy_head, p.dy_row, p.P, n, rows_dy, p.line, tall
    )
    transpose(rows_x, p.line, across_x, p.across, tall, p.line // 4)
    clear(ending, n)
    clear(starting, n)
    skipped = within_chunk(
        p, alike, decays, skip, n, across_x, rows_dy, told, scores, heard, passed, p.down + step, shared
    )
    if chunk + 1 < p.chunks:
        skipped += read_float(p.dskip + of_skip)
    write_float(p.dskip + of_skip, skipped)
    carried, end = ZERO, read_float(p.end + 4 * of_head)
    if chunk + 1 < p.chunks or p.dfinal != 0:
        through_end(p, keys, decays, n, rows_x, across_x, dstate, told, other, ending, dB)
        if state != 0:
            carried = end * dot(dstate, state, p.S * p.line)
    dx = p.dx + 4 * ((sequence * p.rows + begin) * p.heads + head) * p.P
    for i in range(n):
        for c in range(0, p.P, WIDTH):
            put(dx + 4 * (i * p.heads * p.P + c), load(told + i * p.line + 4 * c), p.P - c)
    through_start(p, queries, decays, n, state, end, rows_dy, dstate, across_x, other, starting, dC)
    write_steps(p, decays, n, heard, passed, ending, starting, carried, p.dlog_decay + step, p.dweight + step)


@inlined
def write_keys(p, place, n, keys, shared, scratch):
    """Gradients of B and C, of what the item's heads have added up in `shared`; place: of the chunk's first row and its split."""
    tall, turned = p.across // 4, scratch
    queries, dB = keys + tall * p.deep, shared + tall * p.across
    dC = dB + p.deep // 4 * p.across
    add_product(queries, 4, p.deep, shared, p.across, dB, p.across, p.S, p.across // ROW, n)
    transpose(shared, p.across, turned, p.across, tall, tall)
    add_product(keys, 4, p.deep, turned, p.across, dC, p.across, p.S, p.across // ROW, n)
    for source, to in ((dB, p.dB), (dC, p.dC)):
        transpose(source, p.across, turned, p.deep, p.deep // 4, tall)
        for i in range(n):
            for s in range(0, p.S, WIDTH):
                put(to + 4 * (place + i * p.groups * p.S + s), load(turned + i * p.deep + 4 * s), p.S - s)


@inlined
def backward_item(p, item, scratch):
    sequence, group, first, last, split = item_heads(p, item)
    size, whole, tall = p.S * p.line, 4 * p.P * p.S, p.across // 4
    keys = scratch + (last - first) * size
    for head in range(first, last):
        dstate = scratch + (head - first) * size
        if p.dfinal != 0:
            gather_state(p, p.dfinal + (sequence * p.heads + head) * whole, dstate)
        else:
            clear(dstate, size // 4)
    for chunk in range(p.chunks - 1, -1, -1):
        begin = chunk * p.N
        n = min(p.N, p.rows - begin)
        shared = read_keys(p, sequence, group, begin, n, keys)
        sums = tall * p.across + p.deep // 2 * p.across
        clear(shared, sums // 4)
        for head in range(first, last):
            backward_chunk(p, sequence, head, chunk, scratch + (head - first) * size, keys, shared, shared + sums)
        row = (split * p.batch + sequence) * p.rows + begin
        write_keys(p, (row * p.groups + group) * p.S, n, keys, shared, shared + sums)
    if p.dinitial != 0:
        for head in range(first, last):
            scatter_state(p, scratch + (head - first) * size, p.dinitial + (sequence * p.heads + head) * whole)


def backward_kernel(address):
    p = record_at(address, RECORD)
    scratch = p.scratch + take_ticket(p.slots) * p.scratch_bytes
    while True:
        item = take_ticket(p.tickets)
        if item >= p.items:
            break
        backward_item(p, item, scratch)


backward_duality = Kernel(backward_kernel, RECORD)
