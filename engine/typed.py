"""From plain values (YAML) to dataclasses: names, types and ranges are checked, and mistakes are explained."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from ..core.errors import UserError, closest

T = TypeVar("T")
_EXAMPLES = {int: "1", float: "0.1", bool: "true"}


def between(low: float, high: float | None = None) -> dict[str, float | None]:
    """Field metadata: a number (or each number of a list) is at least `low` and at most `high`."""
    return {"low": low, "high": high}


def from_mapping(cls: type[T], values: Mapping[str, Any], path: str = "") -> T:
    """A dataclass filled from `values`; `path` is the dotted key of the mapping, for messages.

    Raises:
        UserError: an unknown or missing key, a value of the wrong type or outside its range.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{path} must be a group of keys", given=values, allowed=[each.name for each in fields(cls)])
    known = {each.name: each for each in fields(cls)}
    for key in values:
        if key not in known:
            raise unknown_key(f"{path}{key}", [f"{path}{name}" for name in known], values[key])
    hints, filled = get_type_hints(cls), {}
    for name, each in known.items():
        if name not in values:
            if each.default is MISSING:
                raise UserError(f"{path}{name} is missing", do=f"{path}{name}=...")
            continue
        filled[name] = convert(values[name], hints[name], f"{path}{name}")
        _check_range(filled[name], each.metadata, f"{path}{name}")
    return cls(**filled)


def unknown_key(key: str, known: list[str], value: object = "...") -> UserError:
    """The error for a key that does not exist, with the nearest one that does."""
    known = sorted(name for name in known if not name.endswith(".name"))
    near = closest(key, known) or closest(key.rpartition(".")[2], [name.rpartition(".")[2] for name in known])
    near = near if near is None or near in known else next(name for name in known if name.rpartition(".")[2] == near)
    do = f"{near}={'null' if value is None else value}" if near else None
    return UserError(f"there is no key {key!r}", given=f"{key}={value}", allowed=known or "no keys", do=do)


def convert(value: Any, wanted: Any, path: str) -> Any:
    """`value` as type `wanted` (int, float, str, bool, Literal, dataclass, list, tuple, dict, unions of these).

    Only lossless changes are made: a whole number may stand for a float, a scalar for a word of a Literal.

    Raises:
        UserError: the value is not of that type.
    """
    origin, arguments = get_origin(wanted), get_args(wanted)
    if wanted is Any or wanted is object:
        return value
    if is_dataclass(wanted):
        return from_mapping(wanted, value, f"{path}.")
    if origin in (Union, types.UnionType):
        return _convert_union(value, wanted, arguments, path)
    if origin is Literal:
        for word in arguments:
            if value == word or (isinstance(word, str) and type(value) in (int, float) and str(value) == word):
                return word
        near = closest(str(value), [str(word) for word in arguments])
        raise UserError(
            f"{path} has no option {value!r}", given=value, allowed=list(arguments), do=near and f"{path}={near}"
        )
    if origin in (list, tuple) and isinstance(value, (list, tuple)):
        return _convert_items(value, wanted, origin, arguments, path)
    plain = origin or wanted
    if plain is float and type(value) is int:
        return float(value)
    if plain is dict and isinstance(value, Mapping):
        return dict(value)
    if plain is type(None) and value is None:
        return None
    if isinstance(plain, type) and isinstance(value, plain) and not (plain in (int, float) and isinstance(value, bool)):
        return value
    raise UserError(
        f"{path} has the wrong type",
        given=f"{value!r} ({_kind(value)})",
        allowed=describe(wanted),
        do=_example(path, wanted),
    )


def _convert_union(value: Any, wanted: Any, choices: tuple[Any, ...], path: str) -> Any:
    if value is None and type(None) in choices:
        return None
    real = [choice for choice in choices if choice is not type(None)]
    for choice in real:
        try:
            return convert(value, choice, path)
        except UserError:
            if len(real) == 1 and get_origin(choice) is Literal:
                raise
    raise UserError(
        f"{path} has the wrong type",
        given=f"{value!r} ({_kind(value)})",
        allowed=describe(wanted),
        do=_example(path, wanted),
    )


def _convert_items(value: Any, wanted: Any, origin: type, arguments: tuple[Any, ...], path: str) -> Any:
    if origin is tuple and arguments and arguments[-1] is not Ellipsis:
        if len(value) != len(arguments):
            raise UserError(f"{path} has the wrong length", given=list(value), allowed=describe(wanted))
        return tuple(convert(item, kind, path) for item, kind in zip(value, arguments, strict=True))
    kind = arguments[0] if arguments else Any
    return origin(convert(item, kind, path) for item in value)


def describe(wanted: Any) -> str:
    """A type in words: "a whole number", "a number or null", "auto or cpu"."""
    words = {int: "a whole number", float: "a number", str: "a word", bool: "true or false", type(None): "null"}
    if wanted in words:
        return words[wanted]
    origin, arguments = get_origin(wanted), get_args(wanted)
    if origin in (Union, types.UnionType):
        return " or ".join(describe(each) for each in arguments)
    if origin is Literal:
        return ", ".join(map(str, arguments))
    if origin is tuple and arguments and arguments[-1] is not Ellipsis:
        return f"a list of {len(arguments)}: [{', '.join(describe(each) for each in arguments)}]"
    if origin in (list, tuple):
        return f"a list of: {describe(arguments[0])}" if arguments else "a list"
    return "a group of keys" if origin is dict or wanted is dict else getattr(wanted, "__name__", str(wanted))


def _kind(value: Any) -> str:
    words = {int: "a whole number", float: "a number", str: "a word", bool: "true or false", type(None): "null"}
    return words.get(type(value), type(value).__name__)


def _example(path: str, wanted: Any) -> str | None:
    choices = [each for each in get_args(wanted) or (wanted,) if each in (int, float, bool)]
    return f"{path}={_EXAMPLES[choices[0]]}" if choices else None


def _check_range(value: Any, metadata: Mapping[str, Any], path: str) -> None:
    if "low" not in metadata or value is None:
        return
    low, high = metadata["low"], metadata["high"]
    for number in value if isinstance(value, tuple) else (value,):
        if not (number >= low and (high is None or number <= high)):
            allowed = f"at least {low:g}" if high is None else f"{low:g} to {high:g}"
            raise UserError(f"{path} is out of range", given=number, allowed=allowed, do=f"{path}={low:g}")
