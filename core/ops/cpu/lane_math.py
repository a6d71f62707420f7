"""Functions of lanes that several CPU kernels share."""

from __future__ import annotations

import numpy as np

from .lanes import (
    WIDTH,
    at_most,
    exp2,
    fma,
    load,
    load_bfloat16,
    load_some,
    load_some_bfloat16,
    reciprocal,
    select_positive,
    splat,
    store,
    store_some,
)
from .team import inlined

LOG2_E = np.float32(1.4426950408889634)
LN_2 = np.float32(0.6931471805599453)
ZERO, ONE, TWO = np.float32(0), np.float32(1), np.float32(2)
LARGEST = np.float32(126)  # an exponent of two whose reciprocal is a normal number
# log(1 + u) = 2 artanh(s) with s = u / (2 + u), whose series in s**2 <= 1/9 has these coefficients.
T0, T1, T2, T3, T4, T5, T6 = (np.float32(2 / (2 * i + 1)) for i in range(7))


@inlined
def get(address, count):
    """One block of a row; lanes past the last channel are zero."""
    if count >= WIDTH:
        return load(address)
    return load_some(address, count)


@inlined
def get_bfloat16(address, count):
    """One block of a row of bfloat16 numbers; lanes past the last channel are zero."""
    if count >= WIDTH:
        return load_bfloat16(address)
    return load_some_bfloat16(address, count)


@inlined
def put(address, value, count):
    if count >= WIDTH:
        store(address, value)
    else:
        store_some(address, value, count)


@inlined
def clear(address, count):
    """Write so many zeros to a byte address."""
    for c in range(0, count, WIDTH):
        put(address + 4 * c, splat(ZERO), count - c)


@inlined
def sigmoid(v):
    return reciprocal(splat(ONE) + exp2(at_most(v * splat(-LOG2_E), splat(LARGEST))))


@inlined
def softplus(v):
    """log(1 + e**v), right to a few units in the last place on both sides of zero."""
    magnitude = select_positive(v, v, splat(ZERO) - v)
    u = exp2(magnitude * splat(-LOG2_E))
    s = u * reciprocal(splat(TWO) + u)
    square = s * s
    series = fma(fma(splat(T6), square, splat(T5)), square, splat(T4))
    series = fma(fma(series, square, splat(T3)), square, splat(T2))
    series = fma(fma(series, square, splat(T1)), square, splat(T0))
    return fma(series, s, select_positive(v, v, splat(ZERO)))


@inlined
def silu_gradient(z):
    """Derivative of z * sigmoid(z)."""
    s = sigmoid(z)
    return s * fma(z, splat(ONE) - s, splat(ONE))
