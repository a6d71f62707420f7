"""Numba kernels of turned keys: one work item is TOKENS neighbouring tokens, on all paths. Addresses and strides in bytes.

A row is one head's states of one token and rank: v = t + bias, in pairs (a, b) turned to (a cos - b sin, a sin + b cos).
"""

from __future__ import annotations

import numpy as np

from ..cpu.lane_math import ZERO, clear, get, put
from ..cpu.lane_shuffles import every_other, swap_neighbours, twice_each
from ..cpu.lanes import WIDTH, fma, load, splat, take_ticket
from ..cpu.team import Kernel, inlined, record_at

TOKENS = 16

INTEGERS = "t bias cos sin out grad dt dbias dangle signs length paths rank groups heads states pairs halves tokens items tickets"
RECORD = np.dtype([(name, np.int64) for name in INTEGERS.split()])
TICKETS = RECORD.fields["tickets"][1]


@inlined
def turned_neighbours(p, t, bias, cos, sin, out):
    signs, turning = load(p.signs), 2 * p.pairs
    for c in range(0, turning, WIDTH):
        count, half = turning - c, p.pairs - c // 2
        v = get(t + 4 * c, count) + get(bias + 4 * c, count)
        cosine, sine = twice_each(get(cos + 2 * c, half)), twice_each(get(sin + 2 * c, half))
        put(out + 4 * c, fma(v, cosine, swap_neighbours(v) * sine * signs), count)
    for c in range(turning, p.states, WIDTH):
        put(out + 4 * c, get(t + 4 * c, p.states - c) + get(bias + 4 * c, p.states - c), p.states - c)


@inlined
def turned_halves(p, t, bias, cos, sin, out):
    half = p.states // 2
    for c in range(0, p.pairs, WIDTH):
        count, first, second = p.pairs - c, 4 * c, 4 * (half + c)
        a = get(t + first, count) + get(bias + first, count)
        b = get(t + second, count) + get(bias + second, count)
        cosine, sine = get(cos + 4 * c, count), get(sin + 4 * c, count)
        put(out + first, fma(a, cosine, splat(ZERO) - b * sine), count)
        put(out + second, fma(a, sine, b * cosine), count)
    still(p, t, bias, out, p.pairs, half)
    still(p, t, bias, out, half + p.pairs, p.states)


@inlined
def still(p, t, bias, out, begin, end):
    for c in range(begin, end, WIDTH):
        put(out + 4 * c, get(t + 4 * c, end - c) + get(bias + 4 * c, end - c), end - c)


@inlined
def add(to, value, count):
    put(to, get(to, count) + value, count)


@inlined
def neighbours_back(p, t, bias, cos, sin, grad, dt, dbias, dangle):
    """Adds a row's gradients: (ga cos + gb sin, gb cos - ga sin), and of the angle gb a' - ga b' with (a', b') the row turned."""
    signs, turning = load(p.signs), 2 * p.pairs
    for c in range(0, turning, WIDTH):
        count, half = turning - c, p.pairs - c // 2
        v, g = get(t + 4 * c, count) + get(bias + 4 * c, count), get(grad + 4 * c, count)
        cosine, sine = twice_each(get(cos + 2 * c, half)), twice_each(get(sin + 2 * c, half)) * signs
        turned = fma(v, cosine, swap_neighbours(v) * sine)
        back = fma(g, cosine, splat(ZERO) - swap_neighbours(g) * sine)
        add(dt + 4 * c, back, count)
        add(dbias + 4 * c, back, count)
        both = g * swap_neighbours(turned) * signs
        add(dangle + 2 * c, every_other(both + swap_neighbours(both)), min(half, WIDTH // 2))
    still_back(grad, dt, dbias, turning, p.states)


@inlined
def halves_back(p, t, bias, cos, sin, grad, dt, dbias, dangle):
    half = p.states // 2
    for c in range(0, p.pairs, WIDTH):
        count, first, second = p.pairs - c, 4 * c, 4 * (half + c)
        a = get(t + first, count) + get(bias + first, count)
        b = get(t + second, count) + get(bias + second, count)
        cosine, sine = get(cos + 4 * c, count), get(sin + 4 * c, count)
        ga, gb = get(grad + first, count), get(grad + second, count)
        of_a, of_b = fma(ga, cosine, gb * sine), fma(gb, cosine, splat(ZERO) - ga * sine)
        add(dt + first, of_a, count)
        add(dt + second, of_b, count)
        add(dbias + first, of_a, count)
        add(dbias + second, of_b, count)
        add(dangle + 4 * c, a * of_b - b * of_a, count)
    still_back(grad, dt, dbias, p.pairs, half)
    still_back(grad, dt, dbias, half + p.pairs, p.states)


@inlined
def still_back(grad, dt, dbias, begin, end):
    for c in range(begin, end, WIDTH):
        g = get(grad + 4 * c, end - c)
        add(dt + 4 * c, g, end - c)
        add(dbias + 4 * c, g, end - c)


def forward(address):
    p = record_at(address, RECORD)
    while True:
        item = take_ticket(address + TICKETS)
        if item >= p.items:
            break
        for token in range(TOKENS * item, min(TOKENS * (item + 1), p.tokens)):
            for path in range(p.paths):
                place = (token // p.length * p.paths + path) * p.length + token % p.length
                for r in range(p.rank):
                    for head in range(p.heads):
                        group = head // (p.heads // p.groups)
                        t = p.t + 4 * p.states * ((token * p.rank + r) * p.groups + group)
                        bias = p.bias + 4 * p.states * (head * p.rank + r)
                        turns = 4 * p.pairs * (place * p.heads + head)
                        out = p.out + 4 * p.states * ((place * p.rank + r) * p.heads + head)
                        if p.halves == 0:
                            turned_neighbours(p, t, bias, p.cos + turns, p.sin + turns, out)
                        else:
                            turned_halves(p, t, bias, p.cos + turns, p.sin + turns, out)


def backward(address):
    p = record_at(address, RECORD)
    while True:
        item = take_ticket(address + TICKETS)
        if item >= p.items:
            break
        own = p.dbias + 4 * item * p.heads * p.rank * p.states
        clear(own, p.heads * p.rank * p.states)
        for token in range(TOKENS * item, min(TOKENS * (item + 1), p.tokens)):
            clear(p.dt + 4 * token * p.rank * p.groups * p.states, p.rank * p.groups * p.states)
            for path in range(p.paths):
                place = (token // p.length * p.paths + path) * p.length + token % p.length
                for r in range(p.rank):
                    for head in range(p.heads):
                        key = 4 * p.states * ((token * p.rank + r) * p.groups + head // (p.heads // p.groups))
                        bias = 4 * p.states * (head * p.rank + r)
                        turns = 4 * p.pairs * (place * p.heads + head)
                        grad = p.grad + 4 * p.states * ((place * p.rank + r) * p.heads + head)
                        cos, sin, dangle = p.cos + turns, p.sin + turns, p.dangle + turns
                        if p.halves == 0:
                            neighbours_back(p, p.t + key, p.bias + bias, cos, sin, grad, p.dt + key, own + bias, dangle)
                        else:
                            halves_back(p, p.t + key, p.bias + bias, cos, sin, grad, p.dt + key, own + bias, dangle)


forward_kernel, backward_kernel = Kernel(forward, RECORD), Kernel(backward, RECORD)
