"""Numba kernels of the selective scan's gradients. Sizes, work items and scratch: cpu_kernels.py."""

from __future__ import annotations

import numpy as np

from ..cpu.lane_math import LN_2, LOG2_E, ONE, ZERO, get, put, sigmoid, silu_gradient, softplus
from ..cpu.lanes import (
    WIDTH,
    exp2,
    fma,
    load,
    prefetch,
    prefetch_to_write,
    read_float,
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
            kept = a * state
            if tokens[2 * i + 1] != 0:
                a, kept = splat(ZERO), splat(ZERO)
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
        if tokens[2 * i + 1] != 0:
            # Not 0 times what comes from behind: that may be NaN.
            for n in range(N):
                store(carry + ROW * n, splat(ZERO))
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


backward_scan = Kernel(backward_kernel, RECORD)
