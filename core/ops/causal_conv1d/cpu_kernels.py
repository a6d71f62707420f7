"""Numba kernels of the causal convolution: one work item is one sequence, one path and a range of channel blocks.

Sizes: cpu_layout_kernels.py.
"""

from __future__ import annotations

import numpy as np

from ..cpu.lane_math import ZERO, get, put, sigmoid, silu_gradient
from ..cpu.lanes import WIDTH, fma, load, read_float, read_long, splat, store, take_ticket, write_float
from ..cpu.team import Kernel, inlined, record_at
from .cpu_layout_kernels import RECORD, ROW, K, token_at
from .cpu_taps_kernels import TAPS, backward_rows, forward_rows, gradient_rows


@inlined
def reach(p, b, path, step):
    """How many taps before this step lie in its own sequence, the initial state counted in; at most W - 1."""
    if p.seq == 0:
        return p.W - 1
    row = p.seq + 8 * b * p.length
    for lag in range(min(p.W - 1, step)):
        now, before = token_at(p, b, path, step - lag), token_at(p, b, path, step - lag - 1)
        if read_long(row + 8 * now) != read_long(row + 8 * before):
            return lag
    return p.W - 1


@inlined
def gather_inputs(p, b, path, channel, count, start, steps, to):
    """Rows start - (W - 1) .. start + steps of the path's inputs into scratch, those before the path from the state."""
    x = p.x + b * p.x_batch + path * p.x_path + 4 * channel
    for i in range(steps + p.W - 1):
        step = start - (p.W - 1) + i
        row = splat(ZERO)
        if step >= 0:
            row = get(x + token_at(p, b, path, step) * p.x_token, count)
        elif p.initial != 0:
            store(to + ROW * i, row)
            source = p.initial + 4 * (((b * p.paths + path) * p.channels + channel) * (p.W - 1) + p.W - 1 + step)
            for lane in range(min(WIDTH, count)):
                write_float(to + ROW * i + 4 * lane, read_float(source + 4 * lane * (p.W - 1)))
            row = load(to + ROW * i)
        store(to + ROW * i, row)


@inlined
def gather_weights(p, path, channel, count, to):
    """(channels, W) in memory -> [W][lane], and the bias after it."""
    for w in range(p.W):
        store(to + ROW * w, splat(ZERO))
        for lane in range(min(WIDTH, count)):
            source = p.weight + 4 * ((path * p.channels + channel + lane) * p.W + w)
            write_float(to + ROW * w + 4 * lane, read_float(source))
    bias = splat(ZERO)
    if p.bias != 0:
        bias = get(p.bias + 4 * (path * p.channels + channel), count)
    store(to + ROW * p.W, bias)


@inlined
def convolve(inputs, weights, W, taps):
    """bias + sum of taps; `inputs` is the address of this step's own row, of which `taps` before it count."""
    y = load(weights + ROW * W)
    for lag in range(taps + 1):
        y = fma(load(weights + ROW * (W - 1 - lag)), load(inputs - ROW * lag), y)
    return y


@inlined
def steps_of_path(p, b, path):
    """Steps before the path's end (-1)."""
    if p.order == 0:
        return p.steps
    low, high = np.int64(0), p.steps
    while low < high:
        middle = (low + high) // 2
        if token_at(p, b, path, middle) < 0:
            high = middle
        else:
            low = middle + 1
    return low


@inlined
def item_range(p, item):
    """Sequence, path, first block and the block after the last one of a work item."""
    split = item % p.splits
    first, last = split * p.blocks // p.splits, (split + 1) * p.blocks // p.splits
    return item // (p.splits * p.paths), (item // p.splits) % p.paths, first, last


@inlined
def final_rows(p, b, path, channel, count, total):
    """Write the last W - 1 inputs of the path, those of an earlier sequence as zero."""
    kept = kept_rows(p, b, path, total)
    for back in range(p.W - 1):
        step = total - 1 - back
        target = p.final + 4 * (((b * p.paths + path) * p.channels + channel) * (p.W - 1) + p.W - 2 - back)
        for lane in range(min(WIDTH, count)):
            value = ZERO
            if back < kept:
                if step >= 0:
                    x = p.x + b * p.x_batch + path * p.x_path + token_at(p, b, path, step) * p.x_token
                    value = read_float(x + 4 * (channel + lane))
                elif p.initial != 0:
                    row = ((b * p.paths + path) * p.channels + channel + lane) * (p.W - 1) + p.W - 1 + step
                    value = read_float(p.initial + 4 * row)
            write_float(target + 4 * lane * (p.W - 1), value)


@inlined
def kept_rows(p, b, path, total):
    """How many of the last W - 1 inputs belong to the path's last sequence."""
    if p.seq == 0:
        return p.W - 1
    row = p.seq + 8 * b * p.length
    for back in range(min(p.W - 2, total - 1)):
        now, before = token_at(p, b, path, total - 1 - back), token_at(p, b, path, total - 2 - back)
        if read_long(row + 8 * now) != read_long(row + 8 * before):
            return back + 1
    return p.W - 1


@inlined
def forward_item(p, item, scratch):
    b, path, first, last = item_range(p, item)
    weights = scratch
    inputs = scratch + ROW * (p.W + 1) * (last - first)
    total = steps_of_path(p, b, path)
    for j in range(first, last):
        count = p.channels - WIDTH * j
        gather_weights(p, path, WIDTH * j, count, weights + ROW * (p.W + 1) * (j - first))
    for start in range(0, total, K):
        steps = min(K, total - start)
        for j in range(first, last):
            channel = WIDTH * j
            count = p.channels - channel
            gather_inputs(p, b, path, channel, count, start, steps, inputs)
            mine = weights + ROW * (p.W + 1) * (j - first)
            if p.W == TAPS and p.seq == 0:
                forward_rows(p, b, path, channel, count, start, steps, inputs, mine)
                continue
            out = p.out + b * p.out_batch + path * p.out_path + 4 * channel
            for i in range(steps):
                own = inputs + ROW * (i + p.W - 1)
                y = convolve(own, mine, p.W, reach(p, b, path, start + i))
                if p.silu != 0:
                    y = y * sigmoid(y)
                put(out + 4 * token_at(p, b, path, start + i) * p.channels, y, count)
    for j in range(first, last):
        final_rows(p, b, path, WIDTH * j, p.channels - WIDTH * j, total)


def forward_kernel(address):
    p = record_at(address, RECORD)
    scratch = p.scratch + take_ticket(p.slots) * p.scratch_bytes
    while True:
        item = take_ticket(p.tickets)
        if item >= p.items:
            break
        forward_item(p, item, scratch)


@inlined
def gradient_before_activation(p, b, path, channel, count, start, steps, inputs, weights, to):
    """The gradient of bias + sum of taps for a chunk's steps, recomputing what the activation saw."""
    grad_out = p.grad_out + b * p.grad_batch + path * p.grad_path + 4 * channel
    for i in range(steps):
        g = get(grad_out + token_at(p, b, path, start + i) * p.grad_token, count)
        if p.silu != 0:
            y = convolve(inputs + ROW * (i + p.W - 1), weights, p.W, reach(p, b, path, start + i))
            g = g * silu_gradient(y)
        store(to + ROW * i, g)


@inlined
def backward_chunk(p, b, path, j, start, total, own, work):
    """One block of channels over K steps of a path, with W - 1 steps of look-ahead.

    own: weights, bias and the sums of their gradients, W + 1 rows each. Rows `start` to `start + K` of the input get
    their whole gradient here; negative ones are the initial state's.
    """
    channel, W = WIDTH * j, p.W
    count = p.channels - channel
    sums, grads = own + ROW * (W + 1), work + ROW * (K + 2 * W)
    rows, first = min(K, total - start), max(start, 0)
    steps = min(start + rows + W - 1, total) - first
    gather_inputs(p, b, path, channel, count, first, steps, work)
    gradient_before_activation(p, b, path, channel, count, first, steps, work, own, grads)
    for i in range(rows):
        input_gradient(p, b, path, channel, count, start + i, first, steps, total, own, grads)
    for i in range(min(first + steps, start + rows) - first):
        g = load(grads + ROW * i)
        store(sums + ROW * W, load(sums + ROW * W) + g)
        for lag in range(reach(p, b, path, first + i) + 1):
            at = sums + ROW * (W - 1 - lag)
            store(at, fma(g, load(work + ROW * (i + W - 1 - lag)), load(at)))


@inlined
def backward_four_taps(p, b, path, j, start, total, own, work):
    """As backward_chunk, where no sequence begins and no state has a gradient."""
    channel = WIDTH * j
    count, rows = p.channels - channel, min(K, total - start)
    grads, steps = work + ROW * (K + 2 * TAPS), min(rows + TAPS - 1, total - start)
    gather_inputs(p, b, path, channel, count, start, steps, work)
    gradient_rows(p, b, path, channel, count, start, steps, work, own, grads)
    backward_rows(p, b, path, channel, count, start, rows, own, work, grads)


@inlined
def input_gradient(p, b, path, channel, count, step, first, steps, total, weights, grads):
    """Gradient of one input row: what the next W steps, and the final state, took from it."""
    W = p.W
    g = splat(ZERO)
    for lag in range(W):
        i = step + lag - first
        if 0 <= i < steps and reach(p, b, path, step + lag) >= lag:
            g = fma(load(weights + ROW * (W - 1 - lag)), load(grads + ROW * i), g)
    state = ((b * p.paths + path) * p.channels + channel) * (W - 1)
    back = total - 1 - step
    lanes = min(WIDTH, count)
    spare = grads + ROW * (K + W)
    if p.grad_final != 0 and back < kept_rows(p, b, path, total):
        store(spare, splat(ZERO))
        for lane in range(lanes):
            write_float(spare + 4 * lane, read_float(p.grad_final + 4 * (state + lane * (W - 1) + W - 2 - back)))
        g = g + load(spare)
    if step >= 0:
        target = p.dx + b * p.dx_batch + path * p.dx_path + token_at(p, b, path, step) * p.dx_token + 4 * channel
        if p.dx_path == 0 and path > 0:
            g = g + get(target, count)
        put(target, g, count)
    elif p.dinitial != 0:
        store(spare, g)
        for lane in range(lanes):
            write_float(p.dinitial + 4 * (state + lane * (W - 1) + W - 1 + step), read_float(spare + 4 * lane))


@inlined
def backward_item(p, item, scratch):
    """All paths of one sequence and a range of blocks: paths that share an input add to its gradient in turn."""
    b, split, W = item // p.splits, item % p.splits, p.W
    first, last = split * p.blocks // p.splits, (split + 1) * p.blocks // p.splits
    own = ROW * 2 * (W + 1)
    work = scratch + own * (last - first)
    for path in range(p.paths):
        total = steps_of_path(p, b, path)
        for j in range(first, last):
            mine = scratch + own * (j - first)
            gather_weights(p, path, WIDTH * j, p.channels - WIDTH * j, mine)
            for w in range(W + 1):
                store(mine + ROW * (W + 1 + w), splat(ZERO))
        plain = W == TAPS and p.seq == 0 and p.grad_final == 0 and p.dinitial == 0
        for start in range(0 if plain else 1 - W, total, K):
            for j in range(first, last):
                if plain:
                    backward_four_taps(p, b, path, j, start, total, scratch + own * (j - first), work)
                else:
                    backward_chunk(p, b, path, j, start, total, scratch + own * (j - first), work)
        for j in range(first, last):
            scatter_weights(p, b, path, WIDTH * j, scratch + own * (j - first) + ROW * (W + 1))


@inlined
def scatter_weights(p, b, path, channel, sums):
    """[W][lane] and the bias row after it -> this sequence's gradients in memory."""
    for lane in range(min(WIDTH, p.channels - channel)):
        row = (b * p.paths + path) * p.channels + channel + lane
        write_float(p.dbias + 4 * row, read_float(sums + ROW * p.W + 4 * lane))
        for w in range(p.W):
            write_float(p.dweight + 4 * (row * p.W + w), read_float(sums + ROW * w + 4 * lane))


def backward_kernel(address):
    p = record_at(address, RECORD)
    scratch = p.scratch + take_ticket(p.slots) * p.scratch_bytes
    while True:
        item = take_ticket(p.tickets)
        if item >= p.items:
            break
        backward_item(p, item, scratch)


forward_conv, backward_conv = Kernel(forward_kernel, RECORD), Kernel(backward_kernel, RECORD)
