import random

import numpy as np
import torch

from polymamba.data.randomness import first_of_each, hashed, own_randomness, shuffled, stratified, uniforms


def test_hash_is_fixed_for_ever():
    assert hashed(0).tolist() == [0xE220A8397B1DCDAF]  # the first number of SplitMix64 from state 0
    assert hashed(1, np.arange(3)).tolist() == hashed(np.array([1]), np.arange(3)).tolist()


def test_hash_is_of_each_sample_alone():
    positions = np.array([5, 3, 9])
    whole = uniforms(4, 7, 1, positions)
    assert whole.shape == (3, 4)
    for row, position in enumerate(positions):
        assert np.array_equal(whole[row], uniforms(4, 7, 1, np.array([position]))[0])


def test_uniform_numbers_are_uniform():
    draws = uniforms(3, 0, np.arange(20_000))
    assert draws.min() >= 0
    assert draws.max() < 1
    assert np.abs(draws.mean(0) - 0.5).max() < 0.01
    assert np.abs(draws.var(0) - 1 / 12).max() < 0.002
    assert np.abs(np.corrcoef(draws.T) - np.eye(3)).max() < 0.03


def test_orders_are_permutations_and_differ():
    orders = [shuffled(100, seed, epoch) for seed in range(3) for epoch in range(3)]
    assert all(np.array_equal(np.sort(order), np.arange(100)) for order in orders)
    assert len({tuple(order) for order in orders}) == 9


def test_stratified_parts_are_disjoint_and_even():
    labels = np.repeat([0, 1, 2], [100, 50, 10])
    train, val, test = stratified(labels, hashed(0, np.arange(160)), (0.1, 0.2))
    assert np.array_equal(np.sort(np.concatenate([train, val, test])), np.arange(160))
    assert np.bincount(labels[train]).tolist() == [70, 35, 7]
    assert np.bincount(labels[val]).tolist() == [10, 5, 1]
    assert np.bincount(labels[test]).tolist() == [20, 10, 2]


def test_a_new_sample_moves_few_others():
    labels = np.zeros(101, np.int64)
    keys = hashed(0, np.arange(101))
    before = stratified(labels[:100], keys[:100], (0.2,))[1]
    after = stratified(labels, keys, (0.2,))[1]
    assert len(set(before) ^ set(after)) <= 2


def test_limit_is_even_over_classes():
    labels = np.repeat([0, 1, 2], [100, 50, 2])
    chosen = first_of_each(labels, hashed(0, np.arange(152)), 12)
    assert np.bincount(labels[chosen]).tolist() == [5, 5, 2]
    assert len(first_of_each(labels, hashed(0, np.arange(152)), 1000)) == 152


def test_own_randomness_leaves_the_global_generators_alone():
    def draw():
        return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002

    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    expected = draw()
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002
    torch.set_rng_state(states[2])
    with own_randomness() as seed:
        seed(2**63 + 5)
        first = draw()
        seed(2**63 + 5)
        assert draw() == first
    assert draw() == expected
