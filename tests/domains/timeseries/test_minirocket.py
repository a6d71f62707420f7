"""The baseline's features are the shares that the paper counts, and they tell series apart."""

from itertools import pairwise

import numpy as np
import pytest

from polymamba.domains.timeseries.minirocket import KERNELS, MiniRocket, _convolved, _dilations, minirocket


def series(count, length=40, variables=1, seed=0):
    return np.random.default_rng(seed).standard_normal((count, length, variables))


@pytest.mark.parametrize(("kernel", "dilation"), [(0, 1), (40, 2), (83, 4)])
def test_a_convolution_is_the_one_with_those_weights(kernel, dilation):
    x = series(2)
    weights = np.full(9, -1.0)
    weights[KERNELS[kernel]] = 2
    wide = np.zeros(8 * dilation + 1)
    wide[::dilation] = weights
    expected = [np.convolve(each[:, 0], wide[::-1], "full")[4 * dilation : 4 * dilation + 40] for each in x]
    found = next(_convolved(x, dilation, [np.array([0])], [kernel]))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_several_variables_are_summed():
    x = series(3, variables=4)
    both = next(_convolved(x, 2, [np.array([1, 3])], [7]))
    one, other = (next(_convolved(x[..., [each]], 2, [np.array([0])], [7])) for each in (1, 3))
    np.testing.assert_allclose(both, one + other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("length", [9, 24, 150, 1460])
def test_dilations_reach_as_far_as_a_series(length):
    dilations, counts = _dilations(length, 119)
    assert counts.sum() == 119
    assert dilations[0] == 1
    assert 8 * dilations[-1] <= length - 1
    assert all(one < other for one, other in pairwise(dilations))


def test_features_are_shares():
    x = series(6)
    transform = MiniRocket(840).fit(x)
    features = transform(x)
    assert features.shape == (6, 840)
    assert features.min() >= 0
    assert features.max() <= 1
    assert 0.3 < features.mean() < 0.7
    np.testing.assert_array_equal(features[2:4], transform(x[2:4]))
    kernel, dilation = 10, 0
    said = next(_convolved(x, transform.dilations[0], [transform.subsets[0][kernel]], [kernel]))
    number = sum(len(each) for each in transform.biases[dilation][:kernel])
    np.testing.assert_allclose(features[:, number], (said > transform.biases[0][kernel][0]).mean(1), atol=1e-6)


def test_it_tells_waves_apart():
    random = np.random.default_rng(0)
    labels = np.arange(60) % 2
    phase = 6 * random.random((60, 1, 2))
    waves = np.sin(phase + np.arange(50)[None, :, None] * (0.3 + 0.3 * labels[:, None, None]))
    said = minirocket(waves[:30], labels[:30], features=840)(waves[30:])
    assert (said == labels[30:]).mean() == 1


def test_short_series():
    x = series(5, length=6)
    assert MiniRocket(168).fit(x)(x).shape == (5, 168)
