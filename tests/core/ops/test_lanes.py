"""What the kernels compute with, against float64."""

from __future__ import annotations

import numpy as np
import pytest

from polymamba.core.ops.cpu.lane_math import sigmoid, softplus
from polymamba.core.ops.cpu.lanes import WIDTH, add_sums, exp2, load, store
from polymamba.core.ops.cpu.team import inlined


def applied(function, values: np.ndarray) -> np.ndarray:
    """A function of lanes over float32 numbers, as many as fill whole vectors."""

    @inlined
    def run(address, out, count):
        for at in range(0, 4 * count, 4 * WIDTH):
            store(out + at, function(load(address + at)))

    out = np.empty_like(values)
    run(values.ctypes.data, out.ctypes.data, len(values))
    return out


def numbers(low: float, high: float) -> np.ndarray:
    return np.linspace(low, high, 64 * WIDTH).astype(np.float32)


def test_exp2_is_right_to_seven_digits_and_exact_at_zero():
    values = numbers(-125, 125)
    np.testing.assert_allclose(applied(exp2, values), 2.0 ** values.astype(np.float64), rtol=1.5e-7)
    assert (applied(exp2, np.zeros(WIDTH, np.float32)) == 1).all()


def test_what_is_not_finite():
    values = np.zeros(WIDTH, np.float32)
    values[:4] = np.nan, -np.inf, -1e30, 1e30
    found = applied(exp2, values)
    assert np.isnan(found[0])
    assert (found[1:3] <= 2.0**-126).all()
    assert found[3] >= 2.0**127
    found = applied(sigmoid, values)
    assert np.isnan(found[0])
    np.testing.assert_allclose(found[1:4], [0, 0, 1], atol=1e-37)


@pytest.mark.parametrize(
    ("function", "exact"), [(sigmoid, lambda v: 1 / (1 + np.exp(-v))), (softplus, lambda v: np.logaddexp(0, v))]
)
def test_sigmoid_and_softplus(function, exact):
    values = numbers(-80, 80)
    np.testing.assert_allclose(applied(function, values), exact(values.astype(np.float64)), rtol=1e-5)


def test_the_sums_of_four_vectors_are_added_to_four_numbers():
    rows = np.random.default_rng(0).integers(-9, 9, (4, WIDTH)).astype(np.float32)
    total = np.array([1, 20, 300, 4000, 50_000], np.float32)
    row = rows.strides[0]

    @inlined
    def run(address, out):
        add_sums(out, load(address), load(address + row), load(address + 2 * row), load(address + 3 * row))

    run(rows.ctypes.data, total.ctypes.data)
    np.testing.assert_array_equal(total, [*np.add(rows.sum(1), [1, 20, 300, 4000]), 50_000])
