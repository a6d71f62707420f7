"""Products of a few vectors with rows of a matrix, for kernels that read it as it lies in memory, float32 or bfloat16.

Addresses are in bytes; vectors are float32, sums too. What counts is how steadily the matrix streams in: a thread reads four
rows at once that lie a quarter of its share apart, and begins with large shares (measured: as fast as memory can be read at
all, where neighbouring rows, or many small shares, take up to twice as long).
"""

from __future__ import annotations

import numpy as np

from .lane_math import ZERO, get, get_bfloat16
from .lanes import WIDTH, fma, load, load_bfloat16, read_bfloat16, read_float, splat, sum_lanes, write_float
from .team import inlined

ROW = 4 * WIDTH
# Bytes that the smallest share should have, and from how many bytes of a matrix on several threads are worth waking.
SMALLEST, SHARED = 1 << 16, 1 << 18


def team_of(size: int, threads: int) -> int:
    """How many of so many threads are to read a matrix of `size` bytes."""
    return max(1, min(threads, size // SHARED))


def tiers(size: int, team: int) -> int:
    """Into how many tiers of shares work over `size` bytes is cut for a team of threads; see share."""
    return max(1, (size // (team * SMALLEST)).bit_length())


@inlined
def share(item, total, team, tiers):
    """First and past-last of `total` rows of an item: a tier is half of what the tiers before it left, a share a thread."""
    tier, place = item // team, item % team
    left = total >> tier
    first = total - left
    if tier + 1 < tiers:
        left -= left >> 1
    return first + left * place // team, first + left * (place + 1) // team


def _products(load_weights, get_weights, read_weight, size):
    """Functions of one row, and of four that lie `apart` bytes from one another; elements have `size` bytes."""
    step = size * WIDTH

    @inlined
    def one(x, weight, inputs):
        a, b, c, d = splat(ZERO), splat(ZERO), splat(ZERO), splat(ZERO)
        blocks, rest = inputs // WIDTH, inputs % WIDTH
        for _ in range(blocks // 4):
            a = fma(load_weights(weight), load(x), a)
            b = fma(load_weights(weight + step), load(x + ROW), b)
            c = fma(load_weights(weight + 2 * step), load(x + 2 * ROW), c)
            d = fma(load_weights(weight + 3 * step), load(x + 3 * ROW), d)
            weight += 4 * step
            x += 4 * ROW
        for _ in range(blocks % 4):
            a = fma(load_weights(weight), load(x), a)
            weight += step
            x += ROW
        if rest != 0:
            b = fma(get_weights(weight, rest), get(x, rest), b)
        return sum_lanes((a + b) + (c + d))

    @inlined
    def four(x, weight, apart, inputs):
        a, b, c, d = splat(ZERO), splat(ZERO), splat(ZERO), splat(ZERO)
        for _ in range(inputs // WIDTH):
            v = load(x)
            a = fma(load_weights(weight), v, a)
            b = fma(load_weights(weight + apart), v, b)
            c = fma(load_weights(weight + 2 * apart), v, c)
            d = fma(load_weights(weight + 3 * apart), v, d)
            weight += step
            x += ROW
        rest = inputs % WIDTH
        if rest != 0:
            v = get(x, rest)
            a = fma(get_weights(weight, rest), v, a)
            b = fma(get_weights(weight + apart, rest), v, b)
            c = fma(get_weights(weight + 2 * apart, rest), v, c)
            d = fma(get_weights(weight + 3 * apart, rest), v, d)
        return sum_lanes(a), sum_lanes(b), sum_lanes(c), sum_lanes(d)

    @inlined
    def multiply(x, matrix, bias, out, first, last, rows, inputs, outputs):
        quarter = (last - first) // 4
        apart = quarter * inputs * size
        for i in range(first, first + quarter):
            for b in range(rows):
                found = four(x + 4 * b * inputs, matrix + i * inputs * size, apart, inputs)
                for k in range(4):
                    output = i + k * quarter
                    start = read_weight(bias + size * output) if bias != 0 else ZERO
                    write_float(out + 4 * (b * outputs + output), start + found[k])
        for i in range(first + 4 * quarter, last):
            start = read_weight(bias + size * i) if bias != 0 else ZERO
            for b in range(rows):
                value = one(x + 4 * b * inputs, matrix + i * inputs * size, inputs)
                write_float(out + 4 * (b * outputs + i), start + value)

    return multiply


_multiply_float32 = _products(load, get, read_float, 4)
_multiply_bfloat16 = _products(load_bfloat16, get_bfloat16, read_bfloat16, 2)


@inlined
def multiply_rows(x, matrix, bias, out, first, last, rows, inputs, outputs, half):
    """out[b, i] = x[b] . matrix[i] + bias[i] for the outputs i from `first` to before `last` of `rows` vectors b.

    Matrix and bias are bfloat16 where `half` is not 0; without a bias its address is 0.
    """
    if half != 0:
        _multiply_bfloat16(x, matrix, bias, out, first, last, rows, inputs, outputs)
    else:
        _multiply_float32(x, matrix, bias, out, first, last, rows, inputs, outputs)


@inlined
def number(address, index, half):
    """One number of a vector, which is bfloat16 where `half` is not 0; 0 where there is no vector."""
    if address == 0:
        return ZERO
    if half != 0:
        return read_bfloat16(address + 2 * index)
    return read_float(address + 4 * index)


@inlined
def numbers(address, index, count, half):
    """A block of such a vector as lanes, zero past `count`."""
    if half != 0:
        return get_bfloat16(address + 2 * index, count)
    return get(address + 4 * index, count)


@inlined
def mean_square(x, count):
    total = splat(ZERO)
    for i in range(0, count, WIDTH):
        v = get(x + 4 * i, count - i)
        total = fma(v, v, total)
    return sum_lanes(total) / np.float32(count)
