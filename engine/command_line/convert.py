"""From plain values (YAML) to dataclasses: names, types and ranges are checked, and mistakes are explained."""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from ...core.errors import UserError, closest, closest_key
from ...core.ranges import OutOfRange, Range
from .signature import Signature

T = TypeVar("T")
_ANY_WHOLE, _ANY = Range(-(2**64) + 1, 2**64 - 1), Range(-math.inf)
_WORDS = {
    int: "a whole number", float: "a number", str: "a word", bool: "true or false", type(None): "null", object: "a value",
}  # fmt: skip
_EXAMPLES = {int: "1", float: "0.1", bool: "true"}


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
    hints, filled = _hints(cls), {}
    for name, each in known.items():
        if name not in values:
            if each.default is MISSING:
                raise UserError(f"{path}{name} is missing", do=f"{path}{name}=...")
            continue
        filled[name] = convert(values[name], hints[name], f"{path}{name}")
    return cls(**filled)


@cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls, include_extras=True)


def unknown_key(key: str, known: list[str], value: object = "...") -> UserError:
    """The error for a key that does not exist, with the nearest one that does."""
    known = sorted(name for name in known if not name.endswith(".name"))
    near = closest_key(key, known)
    do = f"{near}={as_typed(value)}" if near else None
    return UserError(f"there is no key {key!r}", given=f"{key}={as_typed(value)}", allowed=known or "no keys", do=do)


def as_typed(value: object) -> str:
    """A plain value as a person types it: null, true, [1, 2]."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(as_typed, value))}]"
    return str(value).replace("\n", "\\n")


def convert(value: Any, wanted: Any, path: str) -> Any:
    """`value` as type `wanted` (int, float, str, bool, Literal, dataclass, list, tuple, dict, unions of these).

    Only lossless changes are made: a whole number may stand for a float, a scalar for a word of a Literal. Numbers keep to
    the range that the type is annotated with, and are finite.

    Raises:
        UserError: the value is not of that type, or out of its range.
    """
    origin, arguments = get_origin(wanted), get_args(wanted)
    if origin is Annotated:
        for note in arguments[1:]:
            if isinstance(note, Range) and type(value) in (int, arguments[0]):
                note.check(value, path)
        return convert(value, arguments[0], path)
    if wanted is Any or (wanted is object and value is not None):
        return value
    if is_dataclass(wanted) and isinstance(wanted, type):
        return from_mapping(wanted, value, f"{path}.")
    if isinstance(wanted, Signature):
        return _convert_part(value, wanted, path)
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
    if plain in (int, float) and type(value) in (int, plain):
        (_ANY_WHOLE if type(value) is int else _ANY).check(value, path)
        return plain(value)
    if plain is dict and isinstance(value, Mapping):
        return dict(value)
    if plain is type(None) and value is None:
        return None
    if isinstance(plain, type) and isinstance(value, plain) and plain not in (int, float, object):
        return value
    raise _wrong_type(value, wanted, path)


def _convert_part(value: Any, wanted: Signature, path: str) -> dict[str, Any] | None:
    """A nested part; what it lacks its dataclass has a default for, or says so when it is made."""
    if value is None and wanted.nullable:
        return None
    if not isinstance(value, Mapping):
        raise _wrong_type(value, wanted, path)
    known = wanted.parameters
    for key in value:
        if key not in known:
            raise unknown_key(f"{path}.{key}", [f"{path}.{name}" for name in known], value[key])
    return {key: convert(item, known[key], f"{path}.{key}") for key, item in value.items()}


def _convert_union(value: Any, wanted: Any, choices: tuple[Any, ...], path: str) -> Any:
    if value is None and type(None) in choices:
        return None
    if value == "" and str in choices and type(None) in choices:
        raise UserError(f"{path} is empty", given=f"{path}=", allowed=describe(wanted), do=f"{path}=null")
    real = [choice for choice in choices if choice is not type(None)]
    for choice in real:
        try:
            return convert(value, choice, path)
        except OutOfRange:
            raise
        except UserError:
            if len(real) == 1 and get_origin(choice) is Literal:
                raise
    raise _wrong_type(value, wanted, path)


def _wrong_type(value: Any, wanted: Any, path: str) -> UserError:
    return UserError(
        f"{path} has the wrong type",
        given=f"{value!r} ({_kind(value)})" if isinstance(value, str) else f"{as_typed(value)} ({_kind(value)})",
        allowed=describe(wanted),
        do=_example(path, wanted),
    )


def _convert_items(value: Any, wanted: Any, origin: type, arguments: tuple[Any, ...], path: str) -> Any:
    if origin is tuple and arguments and arguments[-1] is not Ellipsis:
        if len(value) != len(arguments):
            raise UserError(f"{path} has the wrong length", given=list(value), allowed=describe(wanted))
        return tuple(convert(item, kind, path) for item, kind in zip(value, arguments, strict=True))
    kind = arguments[0] if arguments else Any
    if not value and get_origin(kind) is Annotated:
        raise UserError(f"{path} is empty", given="[]", allowed=describe(wanted))
    return origin(convert(item, kind, path) for item in value)


def describe(wanted: Any) -> str:
    """A type in words: "a whole number", "a number or null", "auto or cpu"."""
    if isinstance(wanted, Signature):
        return f"keys {', '.join(wanted.parameters)}" + (" or null" if wanted.nullable else "")
    if wanted in _WORDS:
        return _WORDS[wanted]
    origin, arguments = get_origin(wanted), get_args(wanted)
    if origin is Annotated:
        return f"{describe(arguments[0])} ({', '.join(each.describe() for each in arguments[1:])})"
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
    return _WORDS.get(type(value), "a list" if isinstance(value, (list, tuple)) else "a group of keys")


def _example(path: str, wanted: Any) -> str | None:
    kinds = get_args(wanted) if get_origin(wanted) in (Union, types.UnionType) else (wanted,)
    plain = [get_args(each)[0] if get_origin(each) is Annotated else each for each in kinds]
    choices = [each for each in plain if each in _EXAMPLES]
    return f"{path}={_EXAMPLES[choices[0]]}" if choices else None
