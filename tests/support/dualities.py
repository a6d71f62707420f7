"""Random calls of the operators behind Mamba-2 and Mamba-3."""

from __future__ import annotations

import math
import random

import torch
from operators import random_orders, sequences


def _draw(seed: int, longest: int):
    dice, g = random.Random(seed), torch.Generator().manual_seed(seed)
    most = min(longest, dice.choice([300, 70, 17, 17, 17, 9, 9, 9]))
    return dice, lambda *shape: torch.randn(*shape, generator=g), g, dice.randint(1, most)


def state_space_duality_call(seed: int, longest: int = 300, states: int = 30, paths: int = 5) -> tuple[dict, dict]:
    """(tensors that want gradients, everything else) of one random call."""
    dice, normal, g, length = _draw(seed, longest)
    batch, P = dice.randint(1, 3), dice.choice([1, 1, dice.randint(1, paths)])
    groups = dice.choice([1, 1, 2, 3])
    heads, width, N = groups * dice.randint(1, 4), dice.randint(1, 20), dice.choice([1, 16, dice.randint(1, states)])

    def maybe_paths(shape, at):
        return (*shape[:at], P, *shape[at:]) if dice.random() < 0.5 else shape

    softplus = dice.random() < 0.7
    dt = normal(*maybe_paths((batch, length, heads), 1))
    tensors = {
        "x": normal(*maybe_paths((batch, length, heads, width), 1)),
        "dt": dt - 1 if softplus else 0.5 * dt.abs(),
        "A": -normal(*((P, heads) if P > 1 else (heads,))).exp() * dice.choice([0.01, 1, 10]),
        "B": normal(*maybe_paths((batch, length, groups, N), 1)),
        "C": normal(*maybe_paths((batch, length, groups, N), 1)),
    }
    if dice.random() < 0.6:
        tensors["D"] = normal(*maybe_paths((heads,), 0)) if dice.random() < 0.5 else normal(P, heads, width)
    if dice.random() < 0.6:
        tensors["z"] = normal(batch, length, heads, width)
    if softplus and dice.random() < 0.6:
        tensors["dt_bias"] = 0.5 * normal(*maybe_paths((heads,), 0))
    if dice.random() < 0.5:
        tensors["initial_state"] = normal(batch, P, heads, width, N)
    other = {
        "dt_softplus": softplus,
        "dt_limit": dice.choice([(0.0, math.inf), (0.05, 0.7)]),
        "merge": dice.choice(["sum", "sum", "mean", "none"]),
        "return_final_state": True,
    }
    if P > 1 or dice.random() < 0.5:
        other["order"] = random_orders(dice, g, batch, P, length)
    if dice.random() < 0.4:
        other["seq_idx"] = sequences(dice, g, batch, length)
    return tensors, other


def dense_duality_call(seed: int, longest: int = 300, states: int = 30) -> tuple[dict, dict]:
    """(tensors, restart and rank) of one random call of the operator on dense sequences, rank 1 to 4."""
    dice, normal, g, length = _draw(seed, longest)
    batch, rank, groups = dice.randint(1, 3), dice.choice([1, 1, 2, 3, 4]), dice.choice([1, 2, 3])
    heads, width, N = groups * dice.randint(1, 4), dice.randint(1, 20), dice.randint(1, states)
    rows = length * rank
    tensors = {
        "x": normal(batch, rows, heads, width),
        "log_decay": -normal(batch, length, heads).exp() * dice.choice([0.01, 0.1, 1, 10, 100]),
        "weight": normal(batch, length, heads),
        "own_weight": normal(batch, length, heads) if dice.random() < 0.5 else None,
        "B": normal(batch, rows, groups, N),
        "C": normal(batch, rows, groups, N),
        "initial_state": normal(batch, heads, width, N) if dice.random() < 0.5 else None,
    }
    restart = torch.rand(batch, length, generator=g) < dice.choice([0.03, 0.3])
    tensors["skip"] = normal(dice.choice([1, batch]), heads) if seed % 2 else None
    return tensors, {"restart": restart if dice.random() < 0.5 else None, "rank": rank}


def trapezoidal_scan_call(seed: int, longest: int = 300, states: int = 30, paths: int = 4) -> tuple[dict, dict]:
    """(tensors that want gradients, everything else) of one random call; the parts of a state are named h, B_before, x_before."""
    dice, normal, g, length = _draw(seed, longest)
    batch, P, rank = dice.randint(1, 3), dice.choice([1, 1, dice.randint(1, paths)]), dice.choice([1, 1, 2, 3, 4])
    heads, width, N = dice.randint(1, 6), dice.randint(1, 16), dice.randint(1, states)
    groups = dice.choice([1, heads])

    def maybe_paths(*shape):
        return (shape[0], P, *shape[1:]) if dice.random() < 0.5 else shape

    tensors = {
        "x": normal(*maybe_paths(batch, length, rank, heads, width)),
        "log_decay": -normal(*maybe_paths(batch, length, heads)).exp() * dice.choice([0.01, 0.1, 1, 10]),
        "dt": normal(*maybe_paths(batch, length, heads)).abs(),
        "trapezoid": normal(*maybe_paths(batch, length, heads)).sigmoid(),
        "B": normal(*maybe_paths(batch, length, rank, groups, N)),
        "C": normal(*maybe_paths(batch, length, rank, groups, N)),
    }
    if dice.random() < 0.6:
        tensors["D"] = normal(P, heads)
    if dice.random() < 0.5:
        tensors["h"] = normal(batch, P, heads, width, N)
        tensors["B_before"] = normal(batch, P, rank, groups, N)
        tensors["x_before"] = normal(batch, P, rank, heads, width)
    other = {"merge": dice.choice(["sum", "sum", "mean", "none"])}
    if P > 1 or dice.random() < 0.5:
        other["order"] = random_orders(dice, g, batch, P, length)
    if dice.random() < 0.4:
        other["seq_idx"] = sequences(dice, g, batch, length)
    return tensors, other
