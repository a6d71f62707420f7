"""Errors meant for the person at the keyboard: what was wrong, what was given, what is allowed, what to type."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Hashable, Iterable

log = logging.getLogger(__name__)

NEAR = 0.5  # how alike two words must be for one to be offered for the other


class UserError(ValueError):
    """A mistake in what the user gave; the command line prints it without a stack trace and exits with code 2.

    Args:
        problem: one sentence that says what is wrong.
        given: what the user gave.
        allowed: what would have been right (a value or a list of values).
        do: what to type or change.
    """

    def __init__(self, problem: str, *, given: object = None, allowed: object = None, do: str | None = None):
        self.problem, self.given, self.allowed, self.do = problem, given, allowed, do
        lines = [problem]
        if given is not None:
            lines.append(f"  given:   {given}")
        if allowed is not None:
            lines.append(f"  allowed: {allowed if isinstance(allowed, str) else ', '.join(map(str, allowed))}")
        if do is not None:
            lines.append(f"  do:      {do}")
        super().__init__("\n".join(lines))


def closest_key(key: str, known: Iterable[str]) -> str | None:
    """The dotted key that was most likely meant: what comes after the last dot decides, then the whole.

    "lr" is "optimizer.lr", not "logger", and "optimiser.lr" too.
    """
    last, rated = key.rpartition(".")[2], []
    for name in known:
        ends = difflib.SequenceMatcher(None, name.rpartition(".")[2], last).ratio()
        whole = difflib.SequenceMatcher(None, name, key).ratio()
        rated.append((ends, whole, name))
    ends, whole, name = max(rated, default=(0.0, 0.0, ""), key=lambda each: each[:2])
    return name if max(ends, whole) >= NEAR else None


def closest(word: str, candidates: Iterable[str]) -> str | None:
    """The candidate that looks most like `word`, or None where nothing is near."""
    matches = difflib.get_close_matches(str(word), list(candidates), n=1, cutoff=NEAR)
    return matches[0] if matches else None


def say_once(message: str, about: Hashable) -> None:
    """Logs a warning, the first time that there is one about this."""
    if about not in _SAID:
        _SAID.add(about)
        log.warning(message)


_SAID: set[Hashable] = set()


def check_choice(key: str, value: object, allowed: Iterable[object], what: str | None = None) -> None:
    """Raises UserError unless a value is one of those allowed.

    Args:
        key: what it is set by.
        what: what the message calls it; None: the key.
    """
    allowed = tuple(allowed)
    if value not in allowed:
        near = closest(str(value), map(str, allowed))
        raise UserError(
            f"unknown {what or key} {value!r}", given=value, allowed=allowed, do=f"{key}={near}" if near else None
        )
