"""Random numbers as a function of (seed, epoch, sample): the same whoever draws them, in any order, in any process."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator

import numpy as np
import torch

_MASK = 0xFFFF_FFFF_FFFF_FFFF


def hashed(*parts: int | np.ndarray) -> np.ndarray:
    """A 64-bit hash of the parts, elementwise.

    SplitMix64 (Steele, Lea, Flood 2014), chained over the parts. Written out here because the streams of library
    generators may change between releases, and with them every split and every batch.

    Args:
        parts: integers, or integer arrays that broadcast against each other.

    Returns:
        uint64 array of the broadcast shape, with at least one axis.
    """
    state = np.zeros(1, np.uint64)
    for part in parts:
        if isinstance(part, int):
            part = np.array([part & _MASK], np.uint64)
        state = state + part.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state = state ^ (state >> np.uint64(31))
    return state


def uniforms(count: int, *parts: int | np.ndarray) -> np.ndarray:
    """Uniform numbers in [0, 1): float64 of shape (samples, count), one row for each element of the parts."""
    keys = hashed(*parts)[:, None]
    return (hashed(keys, np.arange(count)[None]) >> np.uint64(11)) * 2.0**-53


def shuffled(count: int, *parts: int) -> np.ndarray:
    """A random order of `count` samples: int64 of shape (count,)."""
    return np.argsort(hashed(*parts, np.arange(count)), kind="stable")


def stratified(labels: np.ndarray, keys: np.ndarray, fractions: tuple[float, ...]) -> list[np.ndarray]:
    """Split samples so that every class is divided in the same proportions.

    Args:
        labels: class of each sample, integers of shape (samples,).
        keys: a hash of each sample; the samples of a class are dealt out in the order of their keys, so that a new
            sample moves few of the others.
        fractions: share of each part after the first; the first gets the rest.

    Returns:
        The parts' sample positions, ascending, the first part first.
    """
    parts: list[list[np.ndarray]] = [[] for _ in range(len(fractions) + 1)]
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        members = members[np.argsort(keys[members], kind="stable")]
        bounds = np.round(np.cumsum(fractions) * len(members)).astype(int)
        pieces = np.split(members, bounds)
        for part, piece in zip(parts, [pieces[-1], *pieces[:-1]], strict=True):
            part.append(piece)
    return [np.sort(np.concatenate(part)) for part in parts]


def divided(count: int, seed: int, *fractions: float) -> list[list[int]]:
    """Positions of samples in parts by a hash, ascending: the rest, then for each fraction a part of at least one sample."""
    order = np.argsort(hashed(seed, np.arange(count)), kind="stable").tolist()
    parts, start = [], 0
    for fraction in fractions:
        end = start + max(1, round(fraction * count))
        parts.append(sorted(order[start:end]))
        start = end
    return [sorted(order[start:]), *parts]


def first_of_each(labels: np.ndarray, keys: np.ndarray, count: int) -> np.ndarray:
    """`count` sample positions, ascending, as evenly over the classes as can be: (min(count, samples),)."""
    rank = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        rank[members[np.argsort(keys[members], kind="stable")]] = np.arange(len(members))
    return np.sort(np.lexsort((labels, rank))[:count])


@contextlib.contextmanager
def own_randomness() -> Iterator[Callable[[int], None]]:
    """Lend the global generators of Python, NumPy and PyTorch to code that draws from them, and put them back after.

    Yields a function that seeds all three.
    """
    python, numpy, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002

    def seed(value: int) -> None:
        random.seed(value)
        np.random.seed(value & 0xFFFF_FFFF)  # noqa: NPY002
        torch.default_generator.manual_seed(value & 0x7FFF_FFFF_FFFF_FFFF)

    try:
        yield seed
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(torch_state)
