from itertools import permutations

import numpy as np
import pytest

from polymamba.core.errors import UserError
from polymamba.domains.timeseries.models.variable_order import SOLVERS, length, shortest_order


def best_of_all(costs, first):
    rest = [each for each in range(len(costs)) if each != first]
    return min(length(costs, np.array([first, *order])) for order in permutations(rest))


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("variables", [1, 2, 3, 7, 30])
def test_an_order_is_an_order(solver, variables):
    costs = np.random.default_rng(variables).normal(size=(variables, variables))
    begin = np.random.default_rng(1).normal(size=variables)
    order = shortest_order(costs, begin, solver)
    assert sorted(order.tolist()) == list(range(variables))
    assert order[0] == begin.argmin()
    assert order.tolist() == shortest_order(costs, begin, solver).tolist()
    assert length(costs, order) <= length(costs, shortest_order(costs, begin, "greedy")) + 1e-9


def test_small_ones_are_solved():
    found = {"annealing": 0, "local_search": 0}
    for seed in range(10):
        costs = np.random.default_rng(seed).uniform(size=(6, 6))
        begin = -np.eye(6)[seed % 6]
        best = best_of_all(costs, seed % 6)
        for solver in found:
            found[solver] += length(costs, shortest_order(costs, begin, solver)) < best + 1e-9
    assert found["annealing"] == 10
    assert found["local_search"] >= 7


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_hidden_chain_is_found(solver):
    chain = np.random.default_rng(3).permutation(25)
    costs = np.ones((25, 25))
    costs[chain[:-1], chain[1:]] = 0
    assert shortest_order(costs, (np.arange(25) != chain[0]).astype(float), solver).tolist() == chain.tolist()


def test_an_unknown_solver_is_refused():
    with pytest.raises(UserError, match="unknown solver"):
        shortest_order(np.eye(3), np.ones(3), "exact")
