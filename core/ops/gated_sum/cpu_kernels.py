"""Numba kernels of the gated sum: one work item is TOKENS neighbouring tokens, on all paths. Addresses and strides in bytes."""

from __future__ import annotations

import numpy as np

from ..cpu.lane_math import ONE, ZERO, clear, get, put, sigmoid
from ..cpu.lanes import WIDTH, fma, splat, take_ticket
from ..cpu.team import Kernel, inlined, record_at

TOKENS = 16

INTEGERS = "y z z_scale y_scale out grad dy dz dz_scale dy_scale z_row length paths rank channels tokens items tickets"
RECORD = np.dtype([(name, np.int64) for name in INTEGERS.split()])
TICKETS = RECORD.fields["tickets"][1]


@inlined
def scale_of(scale, at, count):
    """A block of a scale, ones where there is none."""
    return get(scale + at, count) if scale != 0 else splat(ONE)


@inlined
def forward_row(p, z, place):
    y, out = p.y + 4 * place * p.rank * p.channels, p.out + 4 * place * p.channels
    for c in range(0, p.channels, WIDTH):
        count, total = p.channels - c, splat(ZERO)
        said = get(z + 4 * c, count)
        for r in range(p.rank):
            at = 4 * (r * p.channels + c)
            gate = said * scale_of(p.z_scale, at, count)
            total = fma(get(y + at, count) * gate * sigmoid(gate), scale_of(p.y_scale, at, count), total)
        put(out + 4 * c, total, count)


@inlined
def backward_row(p, z, place, dz, dz_scale, dy_scale):
    """Gradients of y; those of z and the scales are added."""
    rows, grad = 4 * place * p.rank * p.channels, p.grad + 4 * place * p.channels
    for c in range(0, p.channels, WIDTH):
        count = p.channels - c
        said, g, of_z = get(z + 4 * c, count), get(grad + 4 * c, count), get(dz + 4 * c, count)
        for r in range(p.rank):
            at = 4 * (r * p.channels + c)
            a, y = scale_of(p.z_scale, at, count), get(p.y + rows + at, count)
            gate = said * a
            s = sigmoid(gate)
            told = g * scale_of(p.y_scale, at, count)
            put(p.dy + rows + at, told * gate * s, count)
            of_gate = told * y * s * fma(gate, splat(ONE) - s, splat(ONE))
            of_z = fma(of_gate, a, of_z)
            if p.z_scale != 0:
                put(dz_scale + at, fma(of_gate, said, get(dz_scale + at, count)), count)
                put(dy_scale + at, fma(g * y, gate * s, get(dy_scale + at, count)), count)
        put(dz + 4 * c, of_z, count)


def forward(address):
    p = record_at(address, RECORD)
    while True:
        item = take_ticket(address + TICKETS)
        if item >= p.items:
            break
        for token in range(TOKENS * item, min(TOKENS * (item + 1), p.tokens)):
            for path in range(p.paths):
                place = (token // p.length * p.paths + path) * p.length + token % p.length
                forward_row(p, p.z + token * p.z_row, place)


def backward(address):
    p = record_at(address, RECORD)
    while True:
        item = take_ticket(address + TICKETS)
        if item >= p.items:
            break
        own = 4 * item * p.rank * p.channels
        dz_scale, dy_scale = p.dz_scale + own, p.dy_scale + own
        if p.z_scale != 0:
            clear(dz_scale, p.rank * p.channels)
            clear(dy_scale, p.rank * p.channels)
        for token in range(TOKENS * item, min(TOKENS * (item + 1), p.tokens)):
            dz = p.dz + 4 * token * p.channels
            clear(dz, p.channels)
            for path in range(p.paths):
                place = (token // p.length * p.paths + path) * p.length + token % p.length
                backward_row(p, p.z + token * p.z_row, place, dz, dz_scale, dy_scale)


forward_kernel, backward_kernel = Kernel(forward, RECORD), Kernel(backward, RECORD)
