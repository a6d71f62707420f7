"""How large a setting may be, written where the setting is: in the annotation of a parameter or of a dataclass's field.

`embed_dim: Size` is a whole number from 1. The command line reads these annotations without importing what they belong to;
`checked` makes a constructor keep to them whoever calls it.
"""

from __future__ import annotations

import functools
import inspect
import math
import numbers
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from .errors import UserError

LARGEST = 2**31 - 1  # what sizes of tensors and counts of batches are safe for everywhere


class OutOfRange(UserError):
    """A number that is too small, too large or not finite, or something else where a number has to be."""


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`.

    Args:
        low, high: the bounds, allowed themselves; high None: any finite number above.
        above, below: True where the lower or the upper bound itself is not allowed.
    """

    low: float
    high: float | None = None
    above: bool = False
    below: bool = False

    def holds(self, number: float) -> bool:
        """Whether a number lies inside; NaN and infinity never do."""
        if number != number or number in (math.inf, -math.inf):
            return False
        high_enough = number > self.low if self.above else number >= self.low
        low_enough = self.high is None or (number < self.high if self.below else number <= self.high)
        return high_enough and low_enough

    def check(self, number: float, name: str) -> None:
        """Raises OutOfRange where the number lies outside; `name` is what it is called in the message."""
        if self.holds(number):
            return
        too_large = number > self.low  # an upper bound that is merely very large is named only to those who meet it
        nearest = self.high if too_large and not self.below else None if too_large or self.above else self.low
        do = f"{name}={nearest}" if nearest is not None and math.isfinite(nearest) and number == number else None
        raise OutOfRange(f"{name} is out of range", given=_short(number), allowed=self.describe(too_large), do=do)

    def describe(self, whole: bool = False) -> str:
        """The range in words; whole: with an upper bound that is merely very large."""
        if self.low == -math.inf:
            return "a finite number"
        low = f"{'above' if self.above else 'at least'} {self.low:g}"
        if self.high is None or (self.high >= LARGEST and not whole):
            return low
        if self.above:
            return f"{low}, {'below' if self.below else 'at most'} {_figure(self.high)}"
        return f"{self.low:g} to {'below ' if self.below else ''}{_figure(self.high)}"


def _short(number: float) -> str:
    text = str(number)
    return text if len(text) <= 40 else f"{text[:12]}… ({len(text)} digits)"


def _figure(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:g}"


Size = Annotated[int, Range(1, LARGEST)]
Count = Annotated[int, Range(0, LARGEST)]
Depth = Annotated[int, Range(1, 1_000)]  # of layers
Side = Annotated[int, Range(1, 65_536)]  # of an image or a patch, in pixels
Length = Annotated[int, Range(2, LARGEST)]  # of a sequence that a next token is predicted in
Threads = Annotated[int, Range(1, 1_024)]
Workers = Annotated[int, Range(0, 1_024)]  # processes beside the one that trains; 0: none
Seed = Annotated[int, Range(0, 2**63 - 1)]
Weight = Annotated[float, Range(0)]
Positive = Annotated[float, Range(0, above=True)]
Share = Annotated[float, Range(0, 1)]
Mass = Annotated[float, Range(0, 1, above=True)]  # of a probability: more than nothing
Rate = Annotated[float, Range(0, 1, below=True)]  # of dropping, or of a moving average
Fraction = Annotated[float, Range(0, 1, above=True, below=True)]  # a part that leaves another


def check(value: Any, hint: Any, name: str) -> None:
    """Raises OutOfRange where a value does not keep to the ranges in a type.

    Only what the ranges speak of is looked at: a hint without one allows everything.
    """
    kinds = _kinds(hint)
    if value is None or not kinds:
        return
    if isinstance(value, (list, tuple)):
        for item in value:
            check(item, hint, name)
        return
    if isinstance(value, str) and str in _plain(hint):
        return
    for kind, bounds in kinds:
        number = numbers.Integral if kind is int else numbers.Real
        if isinstance(value, number) and not isinstance(value, bool):
            bounds.check(value, name)
            return
    wanted = "a whole number" if kinds[0][0] is int else "a number"
    raise OutOfRange(f"{name} has the wrong type", given=f"{value!r}", allowed=f"{wanted}, {kinds[0][1].describe()}")


def checked(constructor: Callable[..., Any] | None = None, *, group: str = "") -> Any:
    """A constructor that raises OutOfRange where an argument does not keep to the range in its annotation.

    Args:
        group: the config group that the arguments are settings of, for the message.
    """
    if constructor is None:
        return functools.partial(checked, group=group)
    signature, prefix = inspect.signature(constructor), f"{group}." if group else ""

    @functools.cache
    def hints() -> Mapping[str, Any]:
        return {name: hint for name, hint in get_type_hints(constructor, include_extras=True).items() if _kinds(hint)}

    @functools.wraps(constructor)
    def call(*arguments: Any, **options: Any) -> Any:
        given = signature.bind(*arguments, **options).arguments
        for name, hint in hints().items():
            check(given.get(name), hint, f"{prefix}{name}")
        return constructor(*arguments, **options)

    return call


def check_fields(settings: Any, group: str) -> None:
    """The same for a dataclass's fields, from its `__post_init__`."""
    hints = get_type_hints(type(settings), include_extras=True)
    for each in fields(settings):
        check(getattr(settings, each.name), hints[each.name], f"{group}.{each.name}")


def _kinds(hint: Any) -> list[tuple[type, Range]]:
    """The (type, range) pairs anywhere in a type."""
    if get_origin(hint) is Annotated:
        kind, *notes = get_args(hint)
        return [(kind, note) for note in notes if isinstance(note, Range)]
    return [pair for each in get_args(hint) for pair in _kinds(each)]


def _plain(hint: Any) -> set[Any]:
    """The types that a union is of."""
    return set(get_args(hint)) if get_origin(hint) in (Union, types.UnionType) else {hint}
