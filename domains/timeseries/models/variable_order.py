"""In which order to read variables, where each pair of neighbours has a cost: an open travelling salesman's way.

MambaTS (arXiv 2405.16440, section 3.3) finds it by simulated annealing and names local search and the nearest neighbour as
quicker ways.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ....core.errors import check_choice

SOLVERS = ("annealing", "local_search", "greedy")
LONGEST_MOVE = 3  # variables that local search moves together
PROPOSALS = (2_000, 20_000, 100)  # of annealing: at least, at most, a variable
COOLED = 1e-3  # the temperature at annealing's end, of that at its beginning


def shortest_order(costs: np.ndarray, begin: np.ndarray, solver: str = "annealing", seed: int = 0) -> np.ndarray:
    """An order of all variables with a small sum of costs.

    Args:
        costs: (variables, variables), finite: of the second directly after the first.
        begin: (variables,), of each as the first; the cheapest begins.
        solver: "greedy" (the nearest next), "local_search" (that, then up to three variables moved elsewhere while it helps)
            or "annealing" (the same moves at random, the greedy order first).
        seed: of the random moves.

    Returns:
        (variables,) int64, the variables in order.
    """
    check_choice("solver", solver, SOLVERS)
    order = _greedy(costs, int(np.argmin(begin)))
    if len(order) < 3 or solver == "greedy":
        return order
    return _annealed(costs, order, np.random.default_rng(seed)) if solver == "annealing" else _improved(costs, order)


def length(costs: np.ndarray, order: np.ndarray) -> float:
    """The sum of the costs along an order."""
    return float(costs[order[:-1], order[1:]].sum())


def _greedy(costs: np.ndarray, first: int) -> np.ndarray:
    order, left = [first], np.ones(len(costs), dtype=bool)
    left[first] = False
    while left.any():
        order.append(int(np.argmin(np.where(left, costs[order[-1]], np.inf))))
        left[order[-1]] = False
    return np.array(order)


def _improved(costs: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The order after the best place was found for every run of variables, again and again."""
    shortest = np.inf
    while length(costs, order) < shortest - 1e-12:
        shortest = length(costs, order)
        for start, stop in _runs(len(order)):
            run, rest = order[start:stop], np.concatenate([order[:start], order[stop:]])
            gap = costs[rest, run[0]]
            gap[:-1] += costs[run[-1], rest[1:]] - costs[rest[:-1], rest[1:]]
            order = _placed(rest, run, int(np.argmin(gap)))
    return order


def _annealed(costs: np.ndarray, order: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    size, now = len(order), length(costs, order)
    best, shortest = order, now
    least, most, each = PROPOSALS
    count = int(np.clip(each * size, least, most))
    hot = costs.std() + 1e-12
    for step in range(count):
        start = int(generator.integers(1, size))
        stop = min(size, start + int(generator.integers(1, LONGEST_MOVE + 1)))
        rest = np.concatenate([order[:start], order[stop:]])
        moved = _placed(rest, order[start:stop], int(generator.integers(0, len(rest))))
        found = length(costs, moved)
        if found < now or generator.random() < np.exp((now - found) / (hot * COOLED ** (step / count))):
            order, now = moved, found
            if now < shortest:
                best, shortest = order, now
    return best


def _placed(rest: np.ndarray, run: np.ndarray, behind: int) -> np.ndarray:
    return np.concatenate([rest[: behind + 1], run, rest[behind + 1 :]])


def _runs(size: int) -> Iterator[tuple[int, int]]:
    """Bounds of all runs that may move: the first variable stays."""
    for start in range(1, size):
        for stop in range(start + 1, min(size, start + LONGEST_MOVE) + 1):
            yield start, stop
