"""Products and transposes of small matrices inside kernels, against float64."""

from __future__ import annotations

import numpy as np
import pytest

from polymamba.core.ops.cpu.lane_shuffles import transpose
from polymamba.core.ops.cpu.lanes import WIDTH
from polymamba.core.ops.cpu.products import ROWS, VECTORS, add_product


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("depth", [0, 1, 7, 64])
@pytest.mark.parametrize("vectors", [1, VECTORS, 2 * VECTORS + 1])
@pytest.mark.parametrize("rows", [1, ROWS - 1, ROWS, 3 * ROWS + 2])
def test_a_product_is_added_and_nothing_beside_it_touched(rows, vectors, depth, turned):
    a, b = numbers(rows, depth), numbers(depth, vectors * WIDTH + 3, seed=1)
    c = numbers(rows + 1, vectors * WIDTH + 5, seed=2)
    expected = c.astype(np.float64)
    expected[:rows, : vectors * WIDTH] += a.astype(np.float64) @ b[:, : vectors * WIDTH]
    lying = np.ascontiguousarray(a.T) if turned else a
    a_row, a_step = lying.strides[::-1] if turned else lying.strides
    add_product(
        lying.ctypes.data, a_row, a_step, b.ctypes.data, b.strides[0], c.ctypes.data, c.strides[0], rows, vectors, depth
    )
    np.testing.assert_allclose(c, expected, rtol=1e-5, atol=1e-5)
    assert np.array_equal(c[rows], expected[rows])
    assert np.array_equal(c[:, vectors * WIDTH :], expected[:, vectors * WIDTH :])


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 3), (4, 2)])
def test_transposes(rows, columns):
    source = numbers(rows * WIDTH, columns * WIDTH + 2)
    to = np.zeros((columns * WIDTH, rows * WIDTH + 1), np.float32)
    transpose(source.ctypes.data, source.strides[0], to.ctypes.data, to.strides[0], rows * WIDTH, columns * WIDTH)
    assert np.array_equal(to[:, : rows * WIDTH], source[:, : columns * WIDTH].T)
    assert not to[:, rows * WIDTH :].any()
