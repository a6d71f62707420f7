"""A run's stored configuration with a few changes: for going on with it and for testing it elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from ...core.errors import UserError
from ..training.targets import resolve
from .compose import accepted_keys, compose_group, is_choice, parse
from .convert import unknown_key
from .groups import Groups

WHEN_RESUMING = (
    "trainer.epochs", "trainer.steps", "trainer.time_limit", "trainer.accelerator", "trainer.devices", "trainer.threads",
    "trainer.val_every", "trainer.val_every_steps", "trainer.log_every", "trainer.progress", "trainer.checkpoint_every",
    "trainer.limit_val", "trainer.limit_test", "trainer.pictures", "data.workers", "data.root", "data.pin_memory", "logger",
)  # fmt: skip

# How a model reads its data: other data is read in the same way unless something else is typed.
READING = ("length", "tokenizer", "vocab_size", "image_size", "channels", "batch_size", "workers", "seed")


def amend(
    values: dict[str, Any], arguments: Sequence[str], groups: Groups, allowed: Sequence[str], why: str
) -> dict[str, Any]:
    """The stored values after `group=option` and `key=value` arguments.

    Args:
        values: a run's plain configuration.
        arguments: what was typed.
        allowed: keys and groups that may change; a group allows its keys too.
        why: what the message says about the others.

    Raises:
        UserError: an unknown key or option, or one that may not change.
    """
    values = deepcopy(values)
    # Choices first: a key that was typed belongs to the option that was typed, on whichever side of it.
    for override in sorted(parse(arguments), key=lambda each: not is_choice(each, groups)):
        key, value = override.key_or_group, override.value()
        if not any(key == each or key.startswith(f"{each}.") for each in allowed):
            raise UserError(
                why, given=override.input_line, allowed=allowed, do=f"leave {key} as it is, or start a new run"
            )
        if is_choice(override, groups):
            chosen = compose_group(key, str(value), groups, values["domain"])
            values[key] = {**chosen, **_kept(values[key], chosen)} if key == "data" else chosen
            continue
        place, known = values, f"{key.rpartition('.')[0]}."
        *path, last = key.split(".")
        for word in path:
            place = place.get(word)
            if not isinstance(place, dict):
                raise unknown_key(key, list(allowed), value)
        accepted = accepted_keys(place) if "_target_" in place else set(place)
        if last not in place and accepted is not None and last not in accepted:
            raise unknown_key(key, [f"{known}{name}" for name in sorted(accepted)], value)
        place[last] = value
    return values


def _kept(before: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the data before that the data chosen now has too; where images had their own size, that size."""
    same = {name: before[name] for name in READING if before.get(name) is not None and name in chosen}
    if before["_target_"] != chosen["_target_"]:
        for name, attribute in (("image_size", "own_size"), ("channels", "own_channels")):
            if name in chosen and name in before and name not in same:
                own = getattr(resolve(str(before["_target_"])), attribute, None)
                same |= {} if own is None else {name: list(own) if isinstance(own, tuple) else own}
    return same
