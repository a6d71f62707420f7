"""Rows as a file has them to steps that are evenly apart: sorted, each once, none missing; what was done is said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ...core.errors import UserError
from .frequency import Frequency

DUPLICATES = ("refuse", "first", "last", "mean", "sum")
MISSING = ("refuse", "interpolate", "forward", "zero")
IRREGULAR = ("refuse", "nearest")


@dataclass(frozen=True)
class Policies:
    """What is done about duplicates, missing values and stamps between two steps; one word each of the lists above."""

    duplicates: str = "refuse"
    missing: str = "interpolate"
    irregular: str = "refuse"


def regular(
    stamps: np.ndarray,
    values: np.ndarray,
    lines: np.ndarray,
    frequency: Frequency,
    policies: Policies,
    where: str,
    say: Callable[[str], None],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Evenly spaced steps.

    Args:
        stamps: (rows,) datetime64[s], in any order.
        values: (rows, columns) float64, NaN where nothing stands.
        lines: (rows,) where the rows stand in the file.
        where: the file, for messages.
        say: is told what was changed.

    Returns:
        stamps (steps,), values (steps, columns) without NaN, and which of them stand in the file, the same shape, bool.

    Raises:
        UserError: what a policy refuses, with the line.
    """
    order = np.argsort(stamps, kind="stable")
    if (order[1:] < order[:-1]).any():
        say("rows were not in the order of time: sorted")
    stamps, values, lines = stamps[order], values[order], lines[order]
    positions = frequency.positions(stamps)
    exact = frequency.at(stamps[0], positions)
    off = exact != stamps
    if off.any():
        line = lines[off.argmax()]
        if policies.irregular == "refuse":
            raise UserError(
                f"{where}, line {line}: a time stamp that does not fall on a step", given=str(stamps[off.argmax()]),
                allowed=f"steps of {frequency} from {stamps[0]}", do="data.irregular=nearest, or say data.frequency",
            )  # fmt: skip
        say(
            f"{off.sum():,} stamps lie between two steps of {frequency}, the first in line {line}: moved to the nearest"
        )
    positions, values = _once(positions, values, lines, policies.duplicates, where, say, stamps)
    steps = int(positions[-1]) + 1
    even = np.full((steps, values.shape[1]), np.nan)
    even[positions] = values
    if steps > len(positions):
        say(f"{steps - len(positions):,} steps of {frequency} are missing (data.missing={policies.missing})")
    missing = np.isnan(even)
    if missing.any() and policies.missing == "refuse":
        step = int(missing.any(1).argmax())
        raise UserError(
            f"{where}: values are missing", given=f"at {frequency.at(stamps[0], np.array([step]))[0]}",
            do=f"data.missing={MISSING[1]}, or one of {', '.join(MISSING[2:])}",
        )  # fmt: skip
    return frequency.at(stamps[0], np.arange(steps)), _filled(even, policies.missing, where), ~missing


def _once(
    positions: np.ndarray, values: np.ndarray, lines: np.ndarray, policy: str, where: str, say: Callable[[str], None],
    stamps: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Each position once; rows that say the same are one row whatever the policy."""
    unique, first, counts = np.unique(positions, return_index=True, return_counts=True)
    if len(unique) == len(positions):
        return positions, values
    found = values[first].copy()
    same = 0
    for place in np.flatnonzero(counts > 1):
        rows = slice(first[place], first[place] + counts[place])
        group = values[rows]
        if np.array_equal(group, np.broadcast_to(group[:1], group.shape), equal_nan=True) and policy != "sum":
            same += counts[place] - 1
        elif policy == "refuse":
            raise UserError(
                f"{where}, lines {', '.join(map(str, lines[rows]))}: one time stamp with different values",
                given=str(stamps[first[place]]), do="data.duplicates=first, last, mean or sum",
            )  # fmt: skip
        elif policy in ("first", "last"):
            found[place] = group[0 if policy == "first" else -1]
        else:
            known = ~np.isnan(group)
            total = np.where(known, group, 0).sum(0)
            count = known.sum(0)
            found[place] = np.where(count > 0, total / (np.maximum(count, 1) if policy == "mean" else 1), np.nan)
    more = len(positions) - len(unique) - same
    if same:
        say(f"{same:,} rows stand twice: kept once")
    if more:
        say(f"{more:,} rows repeat a time stamp (data.duplicates={policy})")
    return unique, found


def _filled(values: np.ndarray, policy: str, where: str) -> np.ndarray:
    """Values (steps, columns) with something at every place; before the first of a column stands the first."""
    for column in values.T:
        known = np.flatnonzero(~np.isnan(column))
        if len(known) == len(column):
            continue
        if not len(known):
            raise UserError(f"{where}: a column holds no value at all", do="leave the column out: data.targets=[…]")
        places = np.arange(len(column))
        if policy == "interpolate":
            column[:] = np.interp(places, known, column[known])
        elif policy == "zero":
            column[np.isnan(column)] = 0.0
        else:
            column[:] = column[known[np.maximum(np.searchsorted(known, places, "right") - 1, 0)]]
    return values
