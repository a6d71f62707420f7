"""What a domain does apart from training (predict.yaml): its options with what was typed, checked without importing it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...core.errors import UserError
from ..training.targets import check_listed
from . import signature
from .arguments import check_single, parse
from .convert import unknown_key
from .groups import Groups
from .part_keys import check_keys, no_target, typed_keys
from .yaml_files import read_yaml


def compose_part(
    part: str, domain: str, typed: Sequence[str], groups: Groups | None = None, allow: Sequence[str] = ()
) -> dict[str, Any]:
    """The values of configs/<domain>/<part>.yaml after `key=value` arguments, checked against its `_target_`.

    Args:
        part: what a domain does apart from training, such as "predict".
        typed: what was typed; for an option that is a text, any characters. A word without `key=` goes to the option that the
            file's card names under `rest`.
        groups, allow: as of `compose`.

    Returns:
        plain values with `_target_`, without labels, which `targets.build` takes.

    Raises:
        UserError: the domain has no such part; an unknown option, a value of the wrong type or outside its range.
    """
    path = part_file(part, domain, groups or Groups())
    if path is None:
        raise UserError(f"{domain} has no {part}", given=f"domain={domain}", do=f"add configs/{domain}/{part}.yaml")
    values = read_yaml(path)
    if "_target_" not in values:
        raise no_target(part, values)
    check_listed(str(values["_target_"]), allow)
    rest, accepts = (values.get("card") or {}).get("rest"), signature.of(str(values["_target_"]))
    values = {key: value for key, value in values.items() if key not in signature.LABELS or key == "_target_"}
    options = [key.removeprefix(f"{part}.") for key in typed_keys(part, values) or ()]
    kinds = accepts.parameters if accepts is not None else {}
    for argument in _with_rest(typed, rest, kinds, options):
        key, _, text = argument.partition("=")
        if key not in options and not (accepts is None or accepts.open):
            raise unknown_key(key, options, text)
        values[key] = _read_value(key, text, kinds.get(key))
    return _renamed(part, values)


def part_file(part: str, domain: str, groups: Groups) -> Path | None:
    """The file of what a domain does apart from training, such as "predict"; None where it has none."""
    found = (place / f"{part}.yaml" for place in groups.search_path(domain))
    return next((each for each in found if each.is_file()), None)


def _with_rest(typed: Sequence[str], rest: str | None, kinds: Mapping[str, Any], options: Sequence[str]) -> list[str]:
    """The arguments, words without `key=` together as one for the option `rest`."""
    words = []
    for before, word in zip(["", *typed], typed, strict=False):
        if "=" in word:
            continue
        key, equals, text = before.partition("=")
        if equals and _is_text(kinds.get(key)):
            raise UserError(
                "not of the form key=value",
                given=word,
                allowed="a value with a space in quotes",
                do=f'{key}="{text} {word}"',
            )
        if rest is None:
            raise UserError("not of the form key=value", given=word, allowed=[f"{each}=..." for each in options])
        words.append(word)
    return [*(each for each in typed if "=" in each), *([f"{rest}={' '.join(words)}"] if words else [])]


def _is_text(kind: Any) -> bool:
    return kind is str or kind == str | None


def _read_value(key: str, text: str, kind: Any) -> Any:
    """What was typed for an option: as it stands where it is a text, else in Hydra's grammar."""
    if _is_text(kind) and (kind is str or text != "null"):
        return text
    [override] = parse([f"{key}={text}"])
    check_single(override)
    return override.value()


def _renamed(part: str, values: dict[str, Any]) -> dict[str, Any]:
    """`check_keys` with messages that name an option as it is typed, without the part."""
    try:
        return check_keys(part, values)
    except UserError as error:
        raise UserError(
            error.problem.replace(f"{part}.", ""), given=error.given, allowed=error.allowed,
            do=error.do and error.do.replace(f"{part}.", ""),
        ) from None  # fmt: skip
