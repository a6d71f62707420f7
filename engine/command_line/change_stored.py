"""A run's stored configuration with a few changes: for going on with it and for testing it elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from ...core.errors import UserError
from ..training.targets import resolve
from . import signature
from .arguments import check_single, parse
from .compose import compose_group
from .convert import unknown_key
from .groups import Groups
from .part_keys import FREE, full_key, lifted, short_key, typed_keys

WHEN_RESUMING = (
    "trainer.epochs", "trainer.steps", "trainer.time_limit", "trainer.accelerator", "trainer.devices", "trainer.threads",
    "trainer.val_every", "trainer.val_every_steps", "trainer.log_every", "trainer.progress", "trainer.checkpoint_every",
    "trainer.limit_val", "trainer.limit_test", "trainer.pictures", "data.workers", "data.root", "data.pin_memory", "logger",
)  # fmt: skip


def change_stored(
    values: Mapping[str, Any],
    arguments: Sequence[str],
    groups: Groups,
    allowed: Sequence[str],
    why: str,
    allow: Sequence[str] = (),
) -> dict[str, Any]:
    """The stored values after `group=option` and `key=value` arguments.

    Args:
        values: a run's plain configuration.
        arguments: what was typed.
        allowed: keys and groups that may change; a group allows its keys too.
        why: what the message says about the others.
        allow: further packages that a `_target_` may come from.

    Raises:
        UserError: an unknown key or option, or one that may not change.
    """
    values, overrides = lifted(deepcopy(dict(values))), parse(arguments)
    # Choices first: a key that was typed belongs to the option that was typed, on whichever side of it.
    for override in sorted(overrides, key=lambda each: each.key_or_group not in groups.names):
        check_single(override)
        key, value = override.key_or_group, override.value()
        if not may_change(key, allowed):
            raise UserError(
                why, given=override.input_line, allowed=allowed, do=f"leave {key} as it is, or start a new run"
            )
        if key in groups.names:
            chosen = compose_group(key, str(value), groups, values["domain"])
            values[key] = _read_alike(values[key], chosen, allow) if key == "data" else chosen
        else:
            _set(values, key, value, allowed)
    return values


def may_change(key: str, allowed: Sequence[str]) -> bool:
    """Whether a key, typed with or without the nested part that it stands in, is one of those allowed or below one."""
    names = (key, short_key(key))
    return any(name == each or name.startswith(f"{each}.") for name in names for each in allowed)


def _set(values: dict[str, Any], key: str, value: Any, allowed: Sequence[str]) -> None:
    part, _, rest = key.partition(".")
    accepted = None
    if part in FREE and rest:
        accepted = typed_keys(part, values[part])
        key = full_key(part, signature.of(str(values[part]["_target_"])), rest, value)
    *path, last = key.split(".")
    place = values
    for word in path:
        place = place.get(word)
        if not isinstance(place, dict):
            raise unknown_key(key, list(allowed), value)
    accepted = [".".join([*path, name]) for name in place] if part not in FREE else accepted
    if last not in place and accepted is not None and short_key(key) not in accepted:
        raise unknown_key(key, accepted, value)
    place[last] = value


def _read_alike(before: Mapping[str, Any], chosen: Mapping[str, Any], allow: Sequence[str]) -> dict[str, Any]:
    """The data chosen now with the settings of the data before that a model rests on, where they have such settings."""
    reading = getattr(resolve(str(before["_target_"]), allow), "reading", None)
    return dict(chosen) if reading is None else read_with(chosen, reading(before))


def read_with(chosen: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a data set with those settings that it takes."""
    accepts, after = signature.of(str(chosen["_target_"])), dict(chosen)
    for name, value in settings.items():
        if name in chosen or (accepts is not None and name in accepts.parameters):
            after[name] = {**(chosen.get(name) or {}), **value} if isinstance(value, Mapping) else value
    return after
