"""Numba kernels of the selective scan: one work item is one sequence and a range of channel blocks, all paths in turn.

Sizes: N states, K steps a chunk, WIDTH lanes = as many channels = one block. All addresses and strides are in bytes.
A chunk of K steps is worked off block by block, so that the rows of x, delta and the output are touched in runs of
neighbouring cache lines; states live in scratch as [block][N][lane].
"""

from __future__ import annotations

import numpy as np

from ..lane_math import LN_2, LOG2_E, ONE, ZERO, get, put, sigmoid, silu_gradient, softplus
from ..lanes import (
    WIDTH,
    exp2,
    fma,
    load,
    prefetch,
    prefetch_to_write,
    read_float,
    read_int,
    splat,
    store,
    sum_lanes,
    take_ticket,
    write_float,
)
from ..team import Kernel, inlined, record_at

K = 16
ROW = 4 * WIDTH  # bytes of one block

_ADDRESSES = (
    "x delta A B C D z bias order seq initial out ungated final states "
    "grad_out grad_final dx ddelta dA dB dC dD dz dbias dinitial scratch tickets slots covers"
)
_STRIDES = (
    "x_batch x_path x_token delta_batch delta_path delta_token z_batch z_token order_batch order_path "
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
            row = p.seq + 4 * b * p.length
            tokens[2 * i + 1] = read_int(row + 4 * token) != read_int(row + 4 * before)
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
def forward_chunk(p, b, path, group, channel, count, tokens, steps, ahead, A, h):
    """Advance one block's state over one chunk and write the output rows."""
    N = p.N
    x = p.x + b * p.x_batch + path * p.x_path + 4 * channel
    delta = p.delta + b * p.delta_batch + path * p.delta_path + 4 * channel
    B = p.B + b * p.B_batch + path * p.B_path + group * p.B_group
    C = p.C + b * p.C_batch + path * p.C_path + group * p.C_group
    out = b * p.out_batch + path * p.out_path + 4 * channel
    row = 4 * p.channels
    bias, D = splat(ZERO), splat(ZERO)
    if p.bias != 0:
        bias = get(p.bias + 4 * (path * p.channels + channel), count)
    if p.D != 0:
        D = get(p.D + 4 * (path * p.channels + channel), count)
    add = p.merged != 0 and path > 0
    finish = p.z != 0 and (path == p.paths - 1 or p.merged == 0) and read_int(p.covers + 4 * path) != 0
    for i in range(steps):
        prefetch(x + ahead[2 * i] * p.x_token)
        prefetch(delta + ahead[2 * i] * p.delta_token)
        prefetch_to_write(p.out + out + ahead[2 * i] * row)
        if p.ungated != 0:
            prefetch_to_write(p.ungated + out + ahead[2 * i] * row)
        if p.z != 0:
            prefetch(p.z + b * p.z_batch + ahead[2 * i] * p.z_token + 4 * channel)
        token = tokens[2 * i]
        d = get(delta + token * p.delta_token, count) + bias
        if p.softplus != 0:
            d = softplus(d)
        u = get(x + token * p.x_token, count)
        if tokens[2 * i + 1] != 0:
            for n in range(N):
                store(h + ROW * n, splat(ZERO))
        du, y = d * u, D * u
        b_row, c_row = B + token * p.B_token, C + token * p.C_token
        for n in range(N):
            a = exp2(d * load(A + ROW * n))
            state = fma(a, load(h + ROW * n), du * splat(read_float(b_row + 4 * n)))
            store(h + ROW * n, state)
            y = fma(splat(read_float(c_row + 4 * n)), state, y)
        y = y * splat(p.scale)
        here = out + token * row
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
                forward_chunk(p, b, path, group, c, end - c, tokens, steps, ahead, A + j * N * ROW, mine)
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


@inlined
def gradient_of_gate(p, b, channel, blocks, end):
    """dz = sum over outputs of grad_out * ungated * silu'(z)."""
    outputs = 1 if p.merged != 0 else p.paths
    for token in range(p.length):
        for j in range(blocks):
            c = channel + WIDTH * j
            total = splat(ZERO)
            for path in range(outputs):
                y = get(p.ungated + b * p.out_batch + path * p.out_path + token * 4 * p.channels + 4 * c, end - c)
                g = get(p.grad_out + b * p.grad_batch + path * p.grad_path + token * p.grad_token + 4 * c, end - c)
                total = fma(y, g, total)
            z = get(p.z + b * p.z_batch + token * p.z_token + 4 * c, end - c)
            put(p.dz + 4 * ((b * p.length + token) * p.channels + c), total * silu_gradient(z), end - c)


@inlined
def load_tiles(p, b, path, channel, count, tokens, steps, ahead, tiles):
    """One block of a chunk in scratch: x, Δ, dΔ/ddelta and the gradient before the gate, K rows each."""
    bias = splat(ZERO)
    if p.bias != 0:
        bias = get(p.bias + 4 * (path * p.channels + channel), count)
    for i in range(steps):
        token, later = tokens[2 * i], ahead[2 * i]
        prefetch(p.delta + b * p.delta_batch + path * p.delta_path + later * p.delta_token + 4 * channel)
        prefetch(p.x + b * p.x_batch + path * p.x_path + later * p.x_token + 4 * channel)
        prefetch_to_write(p.dx + b * p.dx_batch + path * p.dx_path + 4 * (later * p.channels + channel))
        prefetch_to_write(p.ddelta + b * p.ddelta_batch + path * p.ddelta_path + 4 * (later * p.channels + channel))
        prefetch(p.grad_out + b * p.grad_batch + path * p.grad_path + later * p.grad_token + 4 * channel)
        if p.z != 0:
            prefetch(p.z + b * p.z_batch + later * p.z_token + 4 * channel)
        v = get(p.delta + b * p.delta_batch + path * p.delta_path + token * p.delta_token + 4 * channel, count) + bias
        slope = splat(ONE)
        if p.softplus != 0:
            slope = sigmoid(v)
            v = softplus(v)
        g = get(p.grad_out + b * p.grad_batch + path * p.grad_path + token * p.grad_token + 4 * channel, count)
        if p.z != 0:
            z = get(p.z + b * p.z_batch + token * p.z_token + 4 * channel, count)
            g = g * z * sigmoid(z)
        store(tiles + ROW * i, get(p.x + b * p.x_batch + path * p.x_path + token * p.x_token + 4 * channel, count))
        store(tiles + ROW * (K + i), v)
        store(tiles + ROW * (2 * K + i), slope)
        store(tiles + ROW * (3 * K + i), g * splat(p.scale))


@inlined
def replay_chunk(p, B, tokens, steps, tiles, A, h, decay, carried):
    """From the state at the chunk's start: decay a_t and what it carries over, a_t h_{t-1}, of every step and state."""
    N = p.N
    for n in range(N):
        state, rate = load(h + ROW * n), load(A + ROW * n)
        for i in range(steps):
            d = load(tiles + ROW * (K + i))
            a = exp2(d * rate)
            if tokens[2 * i + 1] != 0:
                a = splat(ZERO)
            kept = a * state
            store(decay + ROW * (i * N + n), a)
            store(carried + ROW * (i * N + n), kept)
            step = d * load(tiles + ROW * i)
            state = fma(step, splat(read_float(B + tokens[2 * i] * p.B_token + 4 * n)), kept)


@inlined
def backward_chunk(p, b, path, group, channel, count, tokens, steps, tiles, A, decay, carried, carry, dA, dB, dC, sums):
    """Walk one block of a chunk backwards: gradients of x and delta to memory, of A, B, C, D and bias to scratch.

    carry [N][lane] is the gradient that reaches the state from later steps; sums: two rows, of dD and dbias.
    """
    N = p.N
    B = p.B + b * p.B_batch + path * p.B_path + group * p.B_group
    C = p.C + b * p.C_batch + path * p.C_path + group * p.C_group
    D, sum_D, sum_bias = splat(ZERO), load(sums), load(sums + ROW)
    if p.D != 0:
        D = get(p.D + 4 * (path * p.channels + channel), count)
    add_x, add_delta = p.dx_path == 0 and path > 0, p.ddelta_path == 0 and path > 0
    dx = p.dx + b * p.dx_batch + path * p.dx_path
    ddelta = p.ddelta + b * p.ddelta_batch + path * p.ddelta_path
    for back in range(steps):
        i = steps - 1 - back
        token = tokens[2 * i]
        u, d, g = load(tiles + ROW * i), load(tiles + ROW * (K + i)), load(tiles + ROW * (3 * K + i))
        du = d * u
        through_input, through_decay = splat(ZERO), splat(ZERO)
        b_row, c_row = B + token * p.B_token, C + token * p.C_token
        for n in range(N):
            at = ROW * (i * N + n)
            input_weight = splat(read_float(b_row + 4 * n))
            kept = load(carried + at)
            q = fma(splat(read_float(c_row + 4 * n)), g, load(carry + ROW * n))
            store(dC + at, fma(g, fma(du, input_weight, kept), load(dC + at)))
            store(dB + at, fma(q, du, load(dB + at)))
            through_input = fma(q, input_weight, through_input)
            w = q * kept
            through_decay = fma(w, load(A + ROW * n), through_decay)
            store(dA + ROW * n, fma(d, w, load(dA + ROW * n)))
            store(carry + ROW * n, q * load(decay + at))
        sum_D = fma(g, u, sum_D)
        grad_x = fma(d, through_input, D * g)
        grad_delta = fma(u, through_input, through_decay * splat(LN_2)) * load(tiles + ROW * (2 * K + i))
        sum_bias = sum_bias + grad_delta
        offset = 4 * (token * p.channels + channel)
        if add_x:
            grad_x = grad_x + get(dx + offset, count)
        if add_delta:
            grad_delta = grad_delta + get(ddelta + offset, count)
        put(dx + offset, grad_x, count)
        put(ddelta + offset, grad_delta, count)
    store(sums, sum_D)
    store(sums + ROW, sum_bias)


@inlined
def add_lane_sums(p, b, path, group, split, tokens, steps, dB, dC):
    """Sum the lanes of a chunk's dB and dC into this split's rows of memory."""
    N = p.N
    B = p.dB + split * p.dB_split + b * p.dB_batch + path * p.dB_path
    C = p.dC + split * p.dC_split + b * p.dC_batch + path * p.dC_path
    for i in range(steps):
        row = 4 * (tokens[2 * i] * p.groups + group) * N
        for n in range(N):
            at = ROW * (i * N + n)
            write_float(B + row + 4 * n, read_float(B + row + 4 * n) + sum_lanes(load(dB + at)))
            write_float(C + row + 4 * n, read_float(C + row + 4 * n) + sum_lanes(load(dC + at)))


@inlined
def backward_item(p, item, scratch, tokens, ahead):
    b, group, channel, blocks, end, split = item_range(p, item)
    N = p.N
    block = N * ROW
    A, carry, dA = scratch, scratch + blocks * block, scratch + 2 * blocks * block
    sums = dA + blocks * block
    tiles = sums + blocks * 2 * ROW
    decay = tiles + 4 * K * ROW
    carried, dB, dC = decay + K * block, decay + 2 * K * block, decay + 3 * K * block
    if p.z != 0:
        gradient_of_gate(p, b, channel, blocks, end)
    for path in range(p.paths):
        for j in range(blocks):
            c = channel + WIDTH * j
            count = min(WIDTH, end - c)
            gather_states(p.A + 4 * (path * p.channels + c) * N, A + j * block, LOG2_E, N, count)
            if p.grad_final != 0:
                source = p.grad_final + 4 * ((b * p.paths + path) * p.channels + c) * N
                gather_states(source, carry + j * block, ONE, N, count)
            for n in range(N):
                if p.grad_final == 0:
                    store(carry + j * block + ROW * n, splat(ZERO))
                store(dA + j * block + ROW * n, splat(ZERO))
            store(sums + 2 * j * ROW, splat(ZERO))
            store(sums + (2 * j + 1) * ROW, splat(ZERO))
        steps = chunk_tokens(p, b, path, (p.chunks - 1) * K, tokens)
        for back in range(p.chunks):
            chunk = p.chunks - 1 - back
            steps_ahead = chunk_tokens(p, b, path, (chunk - 1) * K, ahead)
            for at in range(steps * N):
                store(dB + ROW * at, splat(ZERO))
                store(dC + ROW * at, splat(ZERO))
            for j in range(blocks):
                c = channel + WIDTH * j
                load_tiles(p, b, path, c, end - c, tokens, steps, ahead, tiles)
                h = p.states + state_offset(p, b, path, chunk, group, channel, j)
                B = p.B + b * p.B_batch + path * p.B_path + group * p.B_group
                replay_chunk(p, B, tokens, steps, tiles, A + j * block, h, decay, carried)
                backward_chunk(
                    p, b, path, group, c, end - c, tokens, steps, tiles, A + j * block, decay, carried, carry + j * block,
                    dA + j * block, dB, dC, sums + 2 * j * ROW,
                )  # fmt: skip
            add_lane_sums(p, b, path, group, split, tokens, steps, dB, dC)
            tokens, ahead, steps = ahead, tokens, steps_ahead
        for j in range(blocks):
            c = channel + WIDTH * j
            count = min(WIDTH, end - c)
            row = (b * p.paths + path) * p.channels + c
            scatter_states(dA + j * block, p.dA + 4 * row * N, N, count)
            if p.dinitial != 0:
                scatter_states(carry + j * block, p.dinitial + 4 * row * N, N, count)
            put(p.dD + 4 * row, load(sums + 2 * j * ROW), count)
            put(p.dbias + 4 * row, load(sums + (2 * j + 1) * ROW), count)


def backward_kernel(address):
    p = record_at(address, RECORD)
    scratch = p.scratch + take_ticket(p.slots) * p.scratch_bytes
    tokens, ahead = np.zeros(2 * K, np.int64), np.zeros(2 * K, np.int64)
    while True:
        item = take_ticket(p.tickets)
        if item >= p.items:
            break
        backward_item(p, item, scratch, tokens, ahead)


forward_scan, backward_scan = Kernel(forward_kernel), Kernel(backward_kernel)
