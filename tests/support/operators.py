"""Random calls of the operators, and holding one backend's outputs and gradients to the float64 reference."""

from __future__ import annotations

import random

import torch

from polymamba.core.ops.tolerances import RELATIVE_ERROR


def random_orders(dice: random.Random, generator: torch.Generator, batch: int, paths: int, length: int):
    """A random order, one for all or one a sample; some paths short, ended by -1."""
    rows = dice.choice([1, 1, batch])
    order = torch.stack(
        [torch.stack([torch.randperm(length, generator=generator) for _ in range(paths)]) for _ in range(rows)]
    )
    if dice.random() < 0.4 and length > 1:
        order = order[:, :, : dice.randint(1, length)]
    if dice.random() < 0.4:
        for row in range(rows):
            for path in range(paths):
                order[row, path, dice.randint(0, order.shape[2]) :] = -1
    return order if rows > 1 or dice.random() < 0.5 else order[0]


def sequences(dice: random.Random, generator: torch.Generator, batch: int, length: int):
    """Numbers of packed sequences (batch, length), a new one every few tokens."""
    return (torch.rand(batch, length, generator=generator) < dice.choice([0.05, 0.3])).int().cumsum(1)


def selective_scan_call(seed: int, longest: int = 300, states: int = 64, paths: int = 8) -> tuple[dict, dict]:
    """(tensors that want gradients, everything else) of one random call."""
    dice, g = random.Random(seed), torch.Generator().manual_seed(seed)
    batch, length = (
        dice.randint(1, 3),
        dice.choice([dice.randint(1, min(longest, most)) for most in (longest, 40, 17)]),
    )
    P = dice.choice([1, 1, dice.randint(1, paths)])
    groups = dice.choice([1, 1, 2, 3])
    channels, N = groups * dice.randint(1, 23), dice.choice([1, 16, dice.randint(1, states)])

    def normal(*shape):
        return torch.randn(*shape, generator=g)

    def maybe_paths(shape, at):
        return (*shape[:at], P, *shape[at:]) if dice.random() < 0.5 else shape

    softplus = dice.random() < 0.7
    delta = normal(*maybe_paths((batch, length, channels), 1))
    tensors = {
        "x": normal(*maybe_paths((batch, length, channels), 1)),
        "delta": delta - 1 if softplus else 0.5 * delta.abs(),
        "A": -normal(*((P, channels, N) if P > 1 else (channels, N))).exp(),
        "B": normal(*_matrix(dice, batch, P, length, groups, N)),
        "C": normal(*_matrix(dice, batch, P, length, groups, N)),
    }
    if dice.random() < 0.6:
        tensors["D"] = normal(*maybe_paths((channels,), 0))
    if dice.random() < 0.6:
        tensors["z"] = normal(batch, length, channels)
    if softplus and dice.random() < 0.6:
        tensors["delta_bias"] = 0.5 * normal(*maybe_paths((channels,), 0))
    if dice.random() < 0.5:
        tensors["initial_state"] = normal(batch, P, channels, N)
    other = {
        "delta_softplus": softplus,
        "merge": dice.choice(["sum", "sum", "mean", "none"]),
        "return_final_state": True,
    }
    if P > 1 or dice.random() < 0.7:
        other["order"] = random_orders(dice, g, batch, P, length)
    if dice.random() < 0.4:
        other["seq_idx"] = sequences(dice, g, batch, length)
    return tensors, other


def _matrix(dice, batch, paths, length, groups, states):
    if groups > 1:
        return (batch, dice.choice([1, paths]), length, groups, states)
    return dice.choice([(batch, length, states), (batch, paths, length, states)])


def causal_conv1d_call(seed: int, longest: int = 200, paths: int = 5) -> tuple[dict, dict]:
    """(tensors that want gradients, everything else) of one random call."""
    dice, g = random.Random(seed), torch.Generator().manual_seed(seed)
    batch, length = dice.randint(1, 3), dice.choice([dice.randint(1, longest), dice.randint(1, 9)])
    P, channels, width = dice.choice([1, dice.randint(1, paths)]), dice.randint(1, 37), dice.randint(1, 6)
    shown = P > 1
    tensors = {
        "x": torch.randn(
            *((batch, P, length, channels) if shown and dice.random() < 0.5 else (batch, length, channels)), generator=g
        ),
        "weight": torch.randn(*((P, channels, width) if shown else (channels, width)), generator=g),
    }
    if dice.random() < 0.6:
        tensors["bias"] = torch.randn(*((P, channels) if shown else (channels,)), generator=g)
    if dice.random() < 0.5:
        tensors["initial_state"] = torch.randn(batch, P, channels, width - 1, generator=g)
    other = {"activation": dice.choice([None, "silu"]), "return_final_state": True}
    if P > 1 or dice.random() < 0.7:
        other["order"] = random_orders(dice, g, batch, P, length)
    if dice.random() < 0.4:
        other["seq_idx"] = sequences(dice, g, batch, length)
    return tensors, other


def run(operator, tensors: dict, other: dict, backend: str, dtype=None, device=None, seed: int = 0):
    """Outputs and gradients of the operator, by name, for output gradients that depend on the seed alone."""
    given = {name: t.detach().to(device=device, dtype=dtype).requires_grad_() for name, t in tensors.items()}
    moved = {name: v.to(device) if torch.is_tensor(v) else v for name, v in other.items()}
    out, state = operator(**given, **moved, backend=backend)
    g = torch.Generator().manual_seed(seed)
    incoming = [torch.randn(t.shape, generator=g, dtype=torch.float64).to(t) for t in (out, state)]
    gradients = torch.autograd.grad((out, state), list(given.values()), incoming)
    return {"out": out, "final_state": state} | {f"d{n}": d for n, d in zip(given, gradients, strict=True)}


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    found, expected = found.detach().double().cpu(), expected.detach().double().cpu()
    difference, norm = (found - expected).norm(), expected.norm()
    return float(difference / norm) if norm > 0 else float(difference)


def assert_matches_reference(operator, tensors, other, backend, dtype=torch.float32, device=None):
    """Every output and gradient of a backend is within the table's tolerance of the float64 reference."""
    expected = run(operator, tensors, other, "reference", torch.float64)
    found = run(operator, tensors, other, backend, dtype, device)
    errors = {name: relative_error(found[name], expected[name]) for name in expected}
    wrong = {name: error for name, error in errors.items() if not error <= RELATIVE_ERROR[dtype]}
    assert not wrong, (
        f"{wrong} beyond {RELATIVE_ERROR[dtype]}; shapes { {n: tuple(t.shape) for n, t in tensors.items()} }"
    )


def cast(value, dtype):
    """Floating-point tensors in tuples and lists of any depth in another dtype, everything else as it is."""
    if torch.is_tensor(value):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, (tuple, list)):
        parts = [cast(part, dtype) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def assert_decode_close(found: tuple, expected: tuple, tolerance: float):
    """(output, states) of one token through a mixer, each of the same shape and within a relative error."""
    (y, states), (expected_y, expected_states) = found, expected
    for one, other in zip((y, *states), (expected_y, *expected_states), strict=True):
        assert one.shape == other.shape
        assert relative_error(one, other) <= tolerance
