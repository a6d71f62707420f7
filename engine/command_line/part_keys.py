"""The keys of data, model, task and predict: what their `_target_` takes, and keys of nested parts typed without the part.

`data.batch_size=32` is `data.loading.batch_size=32` where one nested part alone has that key, and a plain value for a nested
part, `data.augmentation=none`, is that of its first key. Configurations of runs from before there were nested parts, which
have flat keys, are read by the same rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...core.errors import UserError
from .convert import convert, unknown_key
from .signature import LABELS, Signature, of

FREE = ("data", "model", "task")  # of a run's configuration: free mappings with a _target_
OFFERED = ("describe", "scan", "model", "run")  # what a run gives, not the user


def nested_parts(signature: Signature) -> dict[str, Signature]:
    """The parameters that are parts with keys of their own, of those that are a person's to set."""
    return {name: kind for name, kind in signature.nested.items() if name not in OFFERED}


def full_key(part: str, signature: Signature | None, key: str, value: Any = None) -> str:
    """The whole dotted key of what was typed as `key` of a part: "data", ..., "batch_size" -> "data.loading.batch_size"."""
    if signature is None:
        return f"{part}.{key}"
    nested, first = nested_parts(signature), key.partition(".")[0]
    if key in nested and value is not None and not isinstance(value, Mapping):
        return f"{part}.{key}.{next(iter(nested[key].parameters))}"
    holding = [name for name, each in nested.items() if first in each.parameters]
    inside = len(holding) == 1 and first not in signature.parameters
    return f"{part}.{holding[0]}.{key}" if inside else f"{part}.{key}"


def short_key(key: str) -> str:
    """A key without the nested part that it stands in: "data.loading.batch_size" -> "data.batch_size"."""
    words = key.split(".")
    return f"{words[0]}.{words[-1]}" if words[0] in FREE else key


def lifted(values: Mapping[str, Any]) -> dict[str, Any]:
    """A whole configuration in which flat keys that stand in a nested part now are put there."""
    return {
        key: _lifted(key, value) if key in FREE and isinstance(value, Mapping) else value
        for key, value in values.items()
    }


def _lifted(part: str, values: Mapping[str, Any]) -> dict[str, Any]:
    signature, found = of(str(values.get("_target_", ""))), dict[str, Any]()
    for key, value in values.items():
        _, name, *within = full_key(part, signature, key, value).split(".")
        if not within:
            found[name] = {**found.get(name, {}), **value} if isinstance(value, Mapping) else value
        else:
            found[name] = {**(found.get(name) or {}), within[0]: value}
    return found


def typed_keys(part: str, values: Mapping[str, Any]) -> list[str] | None:
    """The dotted keys that may be typed for a part, sorted and as short as may be; None where that cannot be known."""
    signature = of(str(values.get("_target_", "")))
    if signature is None or signature.open:
        return None
    found = {name for name in {*values, *signature.parameters} if name not in LABELS and name not in OFFERED}
    nested = nested_parts(signature)
    for each in nested.values():
        found |= set(each.parameters)
    return sorted(f"{part}.{name}" for name in found - set(nested))


def check_keys(part: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a part, after each is found among what its `_target_` takes, with the type that is written there.

    Raises:
        UserError: an unknown key, a value of the wrong type or outside its range.
    """
    signature = of(str(values["_target_"]))
    if signature is None:
        return dict(values)
    found = {}
    for key, value in values.items():
        found[key] = value
        if key in signature.parameters:
            found[key] = convert(value, signature.parameters[key], f"{part}.{key}")
        elif key not in LABELS and not signature.open:
            raise unknown_key(f"{part}.{key}", typed_keys(part, values) or [], value)
    return found


def no_target(part: str, values: Mapping[str, Any]) -> UserError:
    """The error for an option's file that says not what it makes."""
    return UserError(f"the {part} has no _target_", given=f"{part}={values.get('name', '?')}", do="add it to the yaml")
