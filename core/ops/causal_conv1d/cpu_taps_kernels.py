"""Four taps of the causal convolution over rows that no sequence begins in: weights and the last rows stay in registers.

That is what mixers ask for in training. cpu_kernels.py has all other cases, and says what the letters mean.
"""

from __future__ import annotations

from ..cpu.lane_math import ZERO, get, put, sigmoid, silu_gradient
from ..cpu.lanes import fma, load, splat, store
from ..cpu.team import inlined
from .cpu_layout_kernels import ROW, token_at

TAPS = 4


@inlined
def forward_rows(p, b, path, channel, count, start, steps, inputs, weights):
    """Write the output of a chunk's steps; `inputs`: its rows behind the three before it."""
    w0, w1, w2, w3, bias = (
        load(weights), load(weights + ROW), load(weights + 2 * ROW), load(weights + 3 * ROW), load(weights + 4 * ROW),
    )  # fmt: skip
    x0, x1, x2 = load(inputs), load(inputs + ROW), load(inputs + 2 * ROW)
    out = p.out + b * p.out_batch + path * p.out_path + 4 * channel
    for i in range(steps):
        x3 = load(inputs + ROW * (i + 3))
        y = fma(w3, x3, fma(w2, x2, fma(w1, x1, fma(w0, x0, bias))))
        if p.silu != 0:
            y = y * sigmoid(y)
        put(out + 4 * token_at(p, b, path, start + i) * p.channels, y, count)
        x0, x1, x2 = x1, x2, x3


@inlined
def gradient_rows(p, b, path, channel, count, start, steps, inputs, weights, to):
    """The gradient of bias + sum of taps for some steps, recomputing what the activation saw; three rows of zeros behind it."""
    w0, w1, w2, w3, bias = (
        load(weights), load(weights + ROW), load(weights + 2 * ROW), load(weights + 3 * ROW), load(weights + 4 * ROW),
    )  # fmt: skip
    x0, x1, x2 = load(inputs), load(inputs + ROW), load(inputs + 2 * ROW)
    grad_out = p.grad_out + b * p.grad_batch + path * p.grad_path + 4 * channel
    for i in range(steps):
        x3 = load(inputs + ROW * (i + 3))
        g = get(grad_out + token_at(p, b, path, start + i) * p.grad_token, count)
        if p.silu != 0:
            g = g * silu_gradient(fma(w3, x3, fma(w2, x2, fma(w1, x1, fma(w0, x0, bias)))))
        store(to + ROW * i, g)
        x0, x1, x2 = x1, x2, x3
    for i in range(steps, steps + TAPS - 1):
        store(to + ROW * i, splat(ZERO))


@inlined
def backward_rows(p, b, path, channel, count, start, rows, own, inputs, grads):
    """Gradients of a chunk's input rows to memory, of weights and bias to the rows behind those of `own`."""
    w0, w1, w2, w3 = load(own), load(own + ROW), load(own + 2 * ROW), load(own + 3 * ROW)
    sums = own + ROW * (TAPS + 1)
    s0, s1, s2, s3, s4 = load(sums), load(sums + ROW), load(sums + 2 * ROW), load(sums + 3 * ROW), load(sums + 4 * ROW)
    x0, x1, x2 = load(inputs), load(inputs + ROW), load(inputs + 2 * ROW)
    g0, g1, g2 = load(grads), load(grads + ROW), load(grads + 2 * ROW)
    dx, add = p.dx + b * p.dx_batch + path * p.dx_path + 4 * channel, p.dx_path == 0 and path > 0
    for i in range(rows):
        x3, g3 = load(inputs + ROW * (i + 3)), load(grads + ROW * (i + 3))
        target = dx + token_at(p, b, path, start + i) * p.dx_token
        value = fma(w3, g0, fma(w2, g1, fma(w1, g2, w0 * g3)))
        if add:
            value = value + get(target, count)
        put(target, value, count)
        s0, s1, s2, s3, s4 = fma(g0, x0, s0), fma(g0, x1, s1), fma(g0, x2, s2), fma(g0, x3, s3), s4 + g0
        x0, x1, x2, g0, g1, g2 = x1, x2, x3, g1, g2, g3
    store(sums, s0)
    store(sums + ROW, s1)
    store(sums + 2 * ROW, s2)
    store(sums + 3 * ROW, s3)
    store(sums + 4 * ROW, s4)
