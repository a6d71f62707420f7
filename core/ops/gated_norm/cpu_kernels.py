"""Numba kernels of the gated norm: one work item is ROWS neighbouring rows. Addresses and strides in bytes.

With u = x silu(z) and s the scale of a group of u, out = u s weight. With the gate behind the norm, u = x and out is
x s weight silu(z). Without a gate, z at address 0, it is as if it stood behind and were 1.
"""

from __future__ import annotations

import numpy as np

from ..cpu.lane_math import ONE, ZERO, clear, get, put, sigmoid
from ..cpu.lanes import WIDTH, fma, splat, sum_lanes, take_ticket
from ..cpu.team import Kernel, inlined, record_at

ROWS = 32

INTEGERS = "x z weight out grad dx dz dweight x_row z_row grad_row rows channels groups gate_last items"
RECORD = np.dtype([(name, np.int64) for name in INTEGERS.split()] + [("eps", np.float64), ("tickets", np.int64)])
TICKETS = RECORD.fields["tickets"][1]


@inlined
def forward_row(p, row):
    size = p.channels // p.groups
    x, z, out = p.x + row * p.x_row, p.z + row * p.z_row, p.out + 4 * row * p.channels
    for group in range(p.groups):
        at = 4 * group * size
        total = splat(ZERO)
        for c in range(0, size, WIDTH):
            u = get(x + at + 4 * c, size - c)
            if p.gate_last == 0:
                gate = get(z + at + 4 * c, size - c)
                u = u * gate * sigmoid(gate)
                put(out + at + 4 * c, u, size - c)
            total = fma(u, u, total)
        scale = splat(ONE / np.sqrt(sum_lanes(total) / np.float32(size) + np.float32(p.eps)))
        for c in range(0, size, WIDTH):
            here = at + 4 * c
            if p.gate_last == 0:
                y = get(out + here, size - c)
            else:
                y = get(x + here, size - c)
                if p.z != 0:
                    gate = get(z + here, size - c)
                    y = y * gate * sigmoid(gate)
            put(out + here, y * scale * get(p.weight + here, size - c), size - c)


@inlined
def backward_row(p, row, dweight):
    """Gradients of a row of x and z; that of the weight is added at dweight."""
    size, line = p.channels // p.groups, 4 * row * p.channels
    x, z, grad = p.x + row * p.x_row, p.z + row * p.z_row, p.grad + row * p.grad_row
    for group in range(p.groups):
        at = 4 * group * size
        squares, shared = splat(ZERO), splat(ZERO)
        for c in range(0, size, WIDTH):
            here, count = at + 4 * c, size - c
            open_ = splat(ONE)
            if p.z != 0:
                gate = get(z + here, count)
                open_ = gate * sigmoid(gate)
            u, g = get(x + here, count), get(grad + here, count) * get(p.weight + here, count)
            if p.gate_last == 0:
                u = u * open_
            else:
                g = g * open_
            squares, shared = fma(u, u, squares), fma(g, u, shared)
        scale = ONE / np.sqrt(sum_lanes(squares) / np.float32(size) + np.float32(p.eps))
        back = splat(sum_lanes(shared) * scale * scale * scale / np.float32(size))
        scale = splat(scale)
        for c in range(0, size, WIDTH):
            here, count = at + 4 * c, size - c
            v, open_, slope = get(x + here, count), splat(ONE), splat(ZERO)
            if p.z != 0:
                gate = get(z + here, count)
                s = sigmoid(gate)
                open_, slope = gate * s, s * fma(gate, splat(ONE) - s, splat(ONE))
            dy, w = get(grad + here, count), get(p.weight + here, count)
            if p.gate_last == 0:
                u = v * open_
                du = dy * w * scale - u * back
                dx, dz, dw = du * open_, du * v * slope, dy * u * scale
            else:
                normed = v * scale
                dx, dz, dw = dy * open_ * w * scale - v * back, dy * normed * w * slope, dy * open_ * normed
            put(p.dx + line + here, dx, count)
            if p.z != 0:
                put(p.dz + line + here, dz, count)
            put(dweight + here, get(dweight + here, count) + dw, count)


def forward(address):
    p = record_at(address, RECORD)
    while True:
        item = take_ticket(address + TICKETS)
        if item >= p.items:
            break
        for row in range(ROWS * item, min(ROWS * (item + 1), p.rows)):
            forward_row(p, row)


def backward(address):
    p = record_at(address, RECORD)
    while True:
        item = take_ticket(address + TICKETS)
        if item >= p.items:
            break
        dweight = p.dweight + 4 * item * p.channels
        clear(dweight, p.channels)
        for row in range(ROWS * item, min(ROWS * (item + 1), p.rows)):
            backward_row(p, row, dweight)


forward_kernel, backward_kernel = Kernel(forward, RECORD), Kernel(backward, RECORD)
