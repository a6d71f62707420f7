"""Numba kernels of the selective scan, forward, and what backward shares (cpu_backward_kernels.py).

One work item is one sequence and a range of channel blocks, all paths in turn.

Sizes: N states, K steps a chunk, WIDTH lanes = as many channels = one block. All addresses and strides are in bytes.
A chunk of K steps is worked off block by block, so that the rows of x, delta and the output are touched in runs of
neighbouring cache lines; states live in scratch as [block][N][lane].
"""

from __future__ import annotations

import numpy as np

from ..cpu.lane_math import LOG2_E, ONE, ZERO, get, put, sigmoid, softplus
from ..cpu.lanes import (
    WIDTH,
    exp2,
    fma,
    load,
    prefetch,
    prefetch_to_write,
    read_float,
    read_int,
    read_long,
    splat,
    store,
    take_ticket,
    write_float,
)
from ..cpu.team import Kernel, inlined, record_at

K = 16
ROW = 4 * WIDTH  # bytes of one block

_ADDRESSES = (
    "x delta A B C D z bias order seq initial out ungated final states "
    "grad_out grad_final dx ddelta dA dB dC dD dz dbias dinitial scratch tickets slots covers"
)
_STRIDES = (
    "x_batch x_path x_token delta_batch delta_path delta_token z_batch z_token dz_batch dz_token order_batch order_path "
    "B_batch B_path B_token B_group C_batch C_path C_token C_group out_batch out_path "
    "grad_batch grad_path grad_token dx_batch dx_path ddelta_batch ddelta_path "
    "dB_split dB_batch dB_path dC_split dC_batch dC_path"
)
_SIZES = "batch paths length steps channels groups splits N blocks chunks scratch_bytes softplus merged items"
RECORD = np.dtype([(name, np.int64) for name in f"{_ADDRESSES} {_STRIDES} {_SIZES}".split()] + [("scale", np.float32)])


@inlined
def chunk_tokens(p, b, path, start, tokens):
    """Write the tokens of a chunk's steps and whether the state restarts there, (token, restart) pairs; return how many.

    Outside the path there are none.
    """
    if start < 0:
        return 0
    count = min(K, p.steps - start)
    order = p.order + b * p.order_batch + path * p.order_path
    for i in range(count):
        token = start + i
        if p.order != 0:
            token = np.int64(read_int(order + 4 * (start + i)))
            if token < 0:
                return i
        tokens[2 * i] = token
        tokens[2 * i + 1] = 0
        if p.seq != 0 and start + i > 0:
            before = start + i - 1
            if p.order != 0:
                before = np.int64(read_int(order + 4 * before))
            row = p.seq + 8 * b * p.length
            tokens[2 * i + 1] = read_long(row + 8 * token) != read_long(row + 8 * before)
    return count


@inlined
def gather_states(address, to, scale, N, count):
    """(channels, N) rows in memory -> [N][lane]."""
    for n in range(N):
        store(to + ROW * n, splat(ZERO))
        for lane in range(count):
            write_float(to + ROW * n + 4 * lane, read_float(address + 4 * (lane * N + n)) * scale)


@inlined
def scatter_states(source, address, N, count):
    """[N][lane] -> (channels, N) rows in memory."""
    for n in range(N):
        for lane in range(count):
            write_float(address + 4 * (lane * N + n), read_float(source + ROW * n + 4 * lane))


@inlined
def item_range(p, item):
    """Sequence, group, first channel, blocks and split of a work item; a block never straddles two groups."""
    split = item % p.splits
    group = (item // p.splits) % p.groups
    first = split * p.blocks // p.splits
    last = (split + 1) * p.blocks // p.splits
    width = p.channels // p.groups
    return item // (p.splits * p.groups), group, group * width + first * WIDTH, last - first, (group + 1) * width, split


@inlined
def forward_chunk(p, b, path, group, channel, count, tokens, steps, ahead, tile, A, h):
    """Advance one block's state over one chunk and write the output rows; tile: Δ, Δ x and y, K rows each."""
    load_rows(p, b, path, channel, count, tokens, steps, ahead, tile)
    B = p.B + b * p.B_batch + path * p.B_path + group * p.B_group
    C = p.C + b * p.C_batch + path * p.C_path + group * p.C_group
    whole = p.N - p.N % 4
    for n in range(0, whole, 4):
        advance_four(p, B + 4 * n, C + 4 * n, tokens, steps, tile, A + ROW * n, h + ROW * n)
    for n in range(whole, p.N):
        advance_one(p, B + 4 * n, C + 4 * n, tokens, steps, tile, A + ROW * n, h + ROW * n)
    write_rows(p, b, path, channel, count, tokens, steps, tile)


@inlined
def load_rows(p, b, path, channel, count, tokens, steps, ahead, tile):
    x = p.x + b * p.x_batch + path * p.x_path + 4 * channel
    delta = p.delta + b * p.delta_batch + path * p.delta_path + 4 * channel
    out, row = b * p.out_batch + path * p.out_path + 4 * channel, 4 * p.channels
    D, bias = splat(ZERO), splat(ZERO)
    if p.D != 0:
        D = get(p.D + 4 * (path * p.channels + channel), count)
    if p.bias != 0:
        bias = get(p.bias + 4 * (path * p.channels + channel), count)
    for i in range(steps):
        token, later = tokens[2 * i], ahead[2 * i]
        prefetch(x + later * p.x_token)
        prefetch(delta + later * p.delta_token)
        prefetch_to_write(p.out + out + later * row)
        if p.ungated != 0:
            prefetch_to_write(p.ungated + out + later * row)
        if p.z != 0:
            prefetch(p.z + b * p.z_batch + later * p.z_token + 4 * channel)
        d = get(delta + token * p.delta_token, count) + bias
        if p.softplus != 0:
            d = softplus(d)
        u = get(x + token * p.x_token, count)
        store(tile + ROW * i, d)
        store(tile + ROW * (K + i), d * u)
        store(tile + ROW * (2 * K + i), D * u)


@inlined
def advance_four(p, B, C, tokens, steps, tile, A, h):
    """Four states over a chunk: they stay in registers, and none waits for another."""
    a0, a1, a2, a3 = load(A), load(A + ROW), load(A + 2 * ROW), load(A + 3 * ROW)
    h0, h1, h2, h3 = load(h), load(h + ROW), load(h + 2 * ROW), load(h + 3 * ROW)
    for i in range(steps):
        token = tokens[2 * i]
        if tokens[2 * i + 1] != 0:
            h0, h1, h2, h3 = splat(ZERO), splat(ZERO), splat(ZERO), splat(ZERO)
        d, du, y = load(tile + ROW * i), load(tile + ROW * (K + i)), load(tile + ROW * (2 * K + i))
        keys, queries = B + token * p.B_token, C + token * p.C_token
        h0 = fma(exp2(d * a0), h0, du * splat(read_float(keys)))
        h1 = fma(exp2(d * a1), h1, du * splat(read_float(keys + 4)))
        h2 = fma(exp2(d * a2), h2, du * splat(read_float(keys + 8)))
        h3 = fma(exp2(d * a3), h3, du * splat(read_float(keys + 12)))
        y = fma(splat(read_float(queries)), h0, y)
        y = fma(splat(read_float(queries + 4)), h1, y)
        y = fma(splat(read_float(queries + 8)), h2, y)
        y = fma(splat(read_float(queries + 12)), h3, y)
        store(tile + ROW * (2 * K + i), y)
    store(h, h0)
    store(h + ROW, h1)
    store(h + 2 * ROW, h2)
    store(h + 3 * ROW, h3)


@inlined
def advance_one(p, B, C, tokens, steps, tile, A, h):
    rate, state = load(A), load(h)
    for i in range(steps):
        token, at = tokens[2 * i], tile + ROW * (2 * K + i)
        if tokens[2 * i + 1] != 0:
            state = splat(ZERO)
        added = load(tile + ROW * (K + i)) * splat(read_float(B + token * p.B_token))
        state = fma(exp2(load(tile + ROW * i) * rate), state, added)
        store(at, fma(splat(read_float(C + token * p.C_token)), state, load(at)))
    store(h, state)


@inlined
def write_rows(p, b, path, channel, count, tokens, steps, tile):
    out, row = b * p.out_batch + path * p.out_path + 4 * channel, 4 * p.channels
    add, last = p.merged != 0 and path > 0, p.merged == 0 or path == p.paths - 1
    finish = p.z != 0 and last and read_int(p.covers + 4 * path) != 0
    for i in range(steps):
        token = tokens[2 * i]
        here = out + token * row
        y = load(tile + ROW * (2 * K + i)) * splat(p.scale)
        if add:
            y = y + get((p.ungated if p.ungated != 0 else p.out) + here, count)
        if p.ungated != 0:
            put(p.ungated + here, y, count)
        if finish:
            z = get(p.z + b * p.z_batch + token * p.z_token + 4 * channel, count)
            y = y * z * sigmoid(z)
        if p.ungated == 0 or finish:
            put(p.out + here, y, count)


@inlined
def gate(p, b, path, channel, blocks, end):
    """out = ungated * silu(z) for every token: where the last path leaves tokens out."""
    source = p.ungated if p.ungated != 0 else p.out
    for token in range(p.length):
        here = b * p.out_batch + path * p.out_path + token * 4 * p.channels
        for j in range(blocks):
            c = channel + WIDTH * j
            z = get(p.z + b * p.z_batch + token * p.z_token + 4 * c, end - c)
            put(p.out + here + 4 * c, get(source + here + 4 * c, end - c) * z * sigmoid(z), end - c)


@inlined
def forward_item(p, item, scratch, tokens, ahead):
    b, group, channel, blocks, end, _ = item_range(p, item)
    N = p.N
    A, h = scratch, scratch + blocks * N * ROW
    tile = h + blocks * N * ROW
    for path in range(p.paths):
        for j in range(blocks):
            c = channel + WIDTH * j
            count = min(WIDTH, end - c)
            gather_states(p.A + 4 * (path * p.channels + c) * N, A + j * N * ROW, LOG2_E, N, count)
            if p.initial != 0:
                source = p.initial + 4 * ((b * p.paths + path) * p.channels + c) * N
                gather_states(source, h + j * N * ROW, ONE, N, count)
            else:
                for n in range(N):
                    store(h + (j * N + n) * ROW, splat(ZERO))
        steps = chunk_tokens(p, b, path, 0, tokens)
        for chunk in range(p.chunks):
            steps_ahead = chunk_tokens(p, b, path, (chunk + 1) * K, ahead)
            for j in range(blocks):
                c, mine = channel + WIDTH * j, h + j * N * ROW
                if p.states != 0:
                    keep = p.states + state_offset(p, b, path, chunk, group, channel, j)
                    for n in range(N):
                        store(keep + ROW * n, load(mine + ROW * n))
                forward_chunk(p, b, path, group, c, end - c, tokens, steps, ahead, tile, A + j * N * ROW, mine)
            tokens, ahead, steps = ahead, tokens, steps_ahead
        for j in range(blocks):
            c = channel + WIDTH * j
            target = p.final + 4 * ((b * p.paths + path) * p.channels + c) * N
            scatter_states(h + j * N * ROW, target, N, min(WIDTH, end - c))
        if p.z != 0 and (p.merged == 0 or path == p.paths - 1) and read_int(p.covers + 4 * path) == 0:
            gate(p, b, path, channel, blocks, end)


@inlined
def state_offset(p, b, path, chunk, group, channel, j):
    """Where a block's state at the start of a chunk is kept: [batch][path][chunk][group][block][N][lane]."""
    block = (channel - group * (p.channels // p.groups)) // WIDTH + j
    return ((((b * p.paths + path) * p.chunks + chunk) * p.groups + group) * p.blocks + block) * p.N * ROW


def forward_kernel(address):
    p = record_at(address, RECORD)
    scratch = p.scratch + take_ticket(p.slots) * p.scratch_bytes
    tokens, ahead = np.zeros(2 * K, np.int64), np.zeros(2 * K, np.int64)
    while True:
        item = take_ticket(p.tickets)
        if item >= p.items:
            break
        forward_item(p, item, scratch, tokens, ahead)


forward_scan = Kernel(forward_kernel, RECORD)
