"""Numba kernels of the selective scan's gradients. Sizes, work items and scratch: cpu_kernels.py."""

from __future__ import annotations

import numpy as np

from ..cpu.lane_math import LN_2, LOG2_E, ONE, ZERO, get, put, sigmoid, silu_gradient, softplus
from ..cpu.lanes import (
    WIDTH,
    add_sums,
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
from ..cpu.team import Kernel, inlined, record_at
from .cpu_kernels import RECORD, ROW, K, chunk_tokens, gather_states, item_range, scatter_states, state_offset


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
            put(p.dz + b * p.dz_batch + token * p.dz_token + 4 * c, total * silu_gradient(z), end - c)


@inlined
def load_tiles(p, b, path, channel, count, tokens, steps, ahead, tiles, with_gate):
    """One block of a chunk in scratch: x, Δ, dΔ/ddelta and the gradient before the gate, K rows each; then two of zeros.

    with_gate: write the gate's gradient too.
    """
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
        step, step_slope = v, splat(ONE)
        if p.softplus != 0:
            step, step_slope = softplus(v), sigmoid(v)
        g = get(p.grad_out + b * p.grad_batch + path * p.grad_path + token * p.grad_token + 4 * channel, count)
        if p.z != 0:
            z = get(p.z + b * p.z_batch + token * p.z_token + 4 * channel, count)
            open_share = sigmoid(z)
            if with_gate:
                slope = open_share * fma(z, splat(ONE) - open_share, splat(ONE))
                y = get(p.ungated + b * p.out_batch + token * 4 * p.channels + 4 * channel, count)
                put(p.dz + b * p.dz_batch + token * p.dz_token + 4 * channel, g * y * slope, count)
            g = g * z * open_share
        store(tiles + ROW * i, get(p.x + b * p.x_batch + path * p.x_path + token * p.x_token + 4 * channel, count))
        store(tiles + ROW * (K + i), step)
        store(tiles + ROW * (2 * K + i), step_slope)
        store(tiles + ROW * (3 * K + i), g * splat(p.scale))
        store(tiles + ROW * (4 * K + i), splat(ZERO))
        store(tiles + ROW * (5 * K + i), splat(ZERO))


@inlined
def backward_chunk(p, b, path, group, channel, count, tokens, steps, tiles, A, h, decays, carry, dA, dBC, sums):
    """Walk one block of a chunk backwards: gradients of x and delta to memory, of A, B, C, D and bias to scratch.

    h: the states at the chunk's start. carry [N][lane] is the gradient that reaches the state from later steps; sums: two
    rows, of dD and dbias.
    """
    B = p.B + b * p.B_batch + path * p.B_path + group * p.B_group
    C = p.C + b * p.C_batch + path * p.C_path + group * p.C_group
    whole = p.N - p.N % 4
    for n in range(0, whole, 4):
        at = ROW * n
        replay_four(p, B + 4 * n, tokens, steps, tiles, A + at, h + at, decays)
        back_four(p, B + 4 * n, C + 4 * n, tokens, steps, tiles, A + at, decays, carry + at, dA + at, dBC + 2 * at)
    for n in range(whole, p.N):
        at = ROW * n
        replay_one(p, B + 4 * n, tokens, steps, tiles, A + at, h + at, decays)
        back_one(p, B + 4 * n, C + 4 * n, tokens, steps, tiles, A + at, decays, carry + at, dA + at, dBC + 2 * at)
    write_gradients(p, b, path, channel, count, tokens, steps, tiles, sums)


@inlined
def keep(decays, again, decay, state):
    """Write the decay of a step and what it carries over, a_t h_{t-1}: nothing where the state restarts; return that."""
    kept = decay * state
    if again != 0:
        # Not 0 times what was before: that may be NaN.
        decay, kept = splat(ZERO), splat(ZERO)
    store(decays, decay)
    store(decays + ROW, kept)
    return kept


@inlined
def replay_four(p, B, tokens, steps, tiles, A, h, decays):
    """From four states at the chunk's start: what `keep` writes, of every step, [K][4][2] rows."""
    a0, a1, a2, a3 = load(A), load(A + ROW), load(A + 2 * ROW), load(A + 3 * ROW)
    h0, h1, h2, h3 = load(h), load(h + ROW), load(h + 2 * ROW), load(h + 3 * ROW)
    for i in range(steps):
        keys, again, at = B + tokens[2 * i] * p.B_token, tokens[2 * i + 1], decays + 8 * ROW * i
        d = load(tiles + ROW * (K + i))
        du = d * load(tiles + ROW * i)
        h0 = fma(du, splat(read_float(keys)), keep(at, again, exp2(d * a0), h0))
        h1 = fma(du, splat(read_float(keys + 4)), keep(at + 2 * ROW, again, exp2(d * a1), h1))
        h2 = fma(du, splat(read_float(keys + 8)), keep(at + 4 * ROW, again, exp2(d * a2), h2))
        h3 = fma(du, splat(read_float(keys + 12)), keep(at + 6 * ROW, again, exp2(d * a3), h3))


@inlined
def replay_one(p, B, tokens, steps, tiles, A, h, decays):
    state, rate = load(h), load(A)
    for i in range(steps):
        d = load(tiles + ROW * (K + i))
        du = d * load(tiles + ROW * i)
        kept = keep(decays + 2 * ROW * i, tokens[2 * i + 1], exp2(d * rate), state)
        state = fma(du, splat(read_float(B + tokens[2 * i] * p.B_token)), kept)


@inlined
def back_step(du, g, key, query, decays, dBC, carry):
    """One state, one step back: adds to dB and dC; returns the carry before the step, q and q times what was carried over."""
    kept = load(decays + ROW)
    q = fma(query, g, carry)
    store(dBC, fma(q, du, load(dBC)))
    store(dBC + ROW, fma(g, fma(du, key, kept), load(dBC + ROW)))
    return q * load(decays), q, q * kept


@inlined
def back_four(p, B, C, tokens, steps, tiles, A, decays, carry, dA, dBC):
    """Four states over a chunk, backwards; what reaches Δ through decays and through inputs is added to the tiles' last rows."""
    a0, a1, a2, a3 = load(A), load(A + ROW), load(A + 2 * ROW), load(A + 3 * ROW)
    c0, c1, c2, c3 = load(carry), load(carry + ROW), load(carry + 2 * ROW), load(carry + 3 * ROW)
    s0, s1, s2, s3 = load(dA), load(dA + ROW), load(dA + 2 * ROW), load(dA + 3 * ROW)
    for back in range(steps):
        i = steps - 1 - back
        keys, queries = B + tokens[2 * i] * p.B_token, C + tokens[2 * i] * p.C_token
        row, at = ROW * i, decays + 8 * ROW * i
        d, g = load(tiles + ROW * (K + i)), load(tiles + ROW * (3 * K + i))
        du, to = d * load(tiles + row), dBC + 2 * row * p.N
        k0, k1, k2, k3 = (
            splat(read_float(keys)), splat(read_float(keys + 4)), splat(read_float(keys + 8)), splat(read_float(keys + 12)),
        )  # fmt: skip
        c0, q0, w0 = back_step(du, g, k0, splat(read_float(queries)), at, to, c0)
        c1, q1, w1 = back_step(du, g, k1, splat(read_float(queries + 4)), at + 2 * ROW, to + 2 * ROW, c1)
        c2, q2, w2 = back_step(du, g, k2, splat(read_float(queries + 8)), at + 4 * ROW, to + 4 * ROW, c2)
        c3, q3, w3 = back_step(du, g, k3, splat(read_float(queries + 12)), at + 6 * ROW, to + 6 * ROW, c3)
        if tokens[2 * i + 1] != 0:
            # Not 0 times what comes from behind: that may be NaN.
            c0, c1, c2, c3 = splat(ZERO), splat(ZERO), splat(ZERO), splat(ZERO)
        s0, s1, s2, s3 = fma(d, w0, s0), fma(d, w1, s1), fma(d, w2, s2), fma(d, w3, s3)
        inputs, decayed = tiles + ROW * (4 * K + i), tiles + ROW * (5 * K + i)
        store(inputs, fma(q0, k0, fma(q1, k1, fma(q2, k2, fma(q3, k3, load(inputs))))))
        store(decayed, fma(w0, a0, fma(w1, a1, fma(w2, a2, fma(w3, a3, load(decayed))))))
    store(carry, c0)
    store(carry + ROW, c1)
    store(carry + 2 * ROW, c2)
    store(carry + 3 * ROW, c3)
    store(dA, s0)
    store(dA + ROW, s1)
    store(dA + 2 * ROW, s2)
    store(dA + 3 * ROW, s3)


@inlined
def back_one(p, B, C, tokens, steps, tiles, A, decays, carry, dA, dBC):
    rate, c, s = load(A), load(carry), load(dA)
    for back in range(steps):
        i = steps - 1 - back
        d, g, to = load(tiles + ROW * (K + i)), load(tiles + ROW * (3 * K + i)), dBC + 2 * ROW * i * p.N
        key = splat(read_float(B + tokens[2 * i] * p.B_token))
        query = splat(read_float(C + tokens[2 * i] * p.C_token))
        c, q, w = back_step(d * load(tiles + ROW * i), g, key, query, decays + 2 * ROW * i, to, c)
        if tokens[2 * i + 1] != 0:
            c = splat(ZERO)
        s = fma(d, w, s)
        inputs, decayed = tiles + ROW * (4 * K + i), tiles + ROW * (5 * K + i)
        store(inputs, fma(q, key, load(inputs)))
        store(decayed, fma(w, rate, load(decayed)))
    store(carry, c)
    store(dA, s)


@inlined
def write_gradients(p, b, path, channel, count, tokens, steps, tiles, sums):
    D, sum_D, sum_bias = splat(ZERO), load(sums), load(sums + ROW)
    if p.D != 0:
        D = get(p.D + 4 * (path * p.channels + channel), count)
    add_x, add_delta = p.dx_path == 0 and path > 0, p.ddelta_path == 0 and path > 0
    dx = p.dx + b * p.dx_batch + path * p.dx_path
    ddelta = p.ddelta + b * p.ddelta_batch + path * p.ddelta_path
    for i in range(steps):
        u, d, g = load(tiles + ROW * i), load(tiles + ROW * (K + i)), load(tiles + ROW * (3 * K + i))
        through_input, through_decay = load(tiles + ROW * (4 * K + i)), load(tiles + ROW * (5 * K + i))
        sum_D = fma(g, u, sum_D)
        grad_x = fma(d, through_input, D * g)
        grad_delta = fma(u, through_input, through_decay * splat(LN_2)) * load(tiles + ROW * (2 * K + i))
        sum_bias = sum_bias + grad_delta
        offset = 4 * (tokens[2 * i] * p.channels + channel)
        if add_x:
            grad_x = grad_x + get(dx + offset, count)
        if add_delta:
            grad_delta = grad_delta + get(ddelta + offset, count)
        put(dx + offset, grad_x, count)
        put(ddelta + offset, grad_delta, count)
    store(sums, sum_D)
    store(sums + ROW, sum_bias)


@inlined
def add_lane_sums(p, b, path, group, split, tokens, steps, dBC):
    """Sum the lanes of a chunk's dB and dC into this split's rows of memory."""
    N, whole = p.N, p.N - p.N % 4
    B = p.dB + split * p.dB_split + b * p.dB_batch + path * p.dB_path
    C = p.dC + split * p.dC_split + b * p.dC_batch + path * p.dC_path
    for i in range(steps):
        row = 4 * (tokens[2 * i] * p.groups + group) * N
        for n in range(0, whole, 4):
            at = dBC + 2 * ROW * (i * N + n)
            add_four_sums(B + row + 4 * n, at)
            add_four_sums(C + row + 4 * n, at + ROW)
        for n in range(whole, N):
            at = dBC + 2 * ROW * (i * N + n)
            write_float(B + row + 4 * n, read_float(B + row + 4 * n) + sum_lanes(load(at)))
            write_float(C + row + 4 * n, read_float(C + row + 4 * n) + sum_lanes(load(at + ROW)))


@inlined
def add_four_sums(to, rows):
    add_sums(to, load(rows), load(rows + 2 * ROW), load(rows + 4 * ROW), load(rows + 6 * ROW))


@inlined
def backward_item(p, item, scratch, tokens, ahead):
    b, group, channel, blocks, end, split = item_range(p, item)
    N = p.N
    block = N * ROW
    A, carry, dA = scratch, scratch + blocks * block, scratch + 2 * blocks * block
    sums = dA + blocks * block
    tiles = sums + blocks * 2 * ROW
    decays = tiles + 6 * K * ROW
    dBC = decays + 8 * K * ROW
    # Where one output alone is gated, and its path visits all tokens, the gate's gradient is written beside the rest.
    alone = p.z != 0 and (p.merged != 0 or p.paths == 1) and read_int(p.covers) != 0
    if p.z != 0 and not alone:
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
            for at in range(2 * steps * N):
                store(dBC + ROW * at, splat(ZERO))
            for j in range(blocks):
                c = channel + WIDTH * j
                load_tiles(p, b, path, c, end - c, tokens, steps, ahead, tiles, alone and path == 0)
                h = p.states + state_offset(p, b, path, chunk, group, channel, j)
                backward_chunk(
                    p, b, path, group, c, end - c, tokens, steps, tiles, A + j * block, h, decays, carry + j * block,
                    dA + j * block, dBC, sums + 2 * j * ROW,
                )  # fmt: skip
            add_lane_sums(p, b, path, group, split, tokens, steps, dBC)
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


backward_scan = Kernel(backward_kernel, RECORD)
