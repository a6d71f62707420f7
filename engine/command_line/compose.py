"""From what was typed (`model=vim scan=local scan.window=4`) to a checked Config, without importing torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from ...core.errors import UserError, closest_key
from ..training.duration import parse_duration
from ..training.targets import LABELS, check_listed
from . import signature
from .config import Config
from .convert import convert, unknown_key
from .groups import Groups, read_yaml, unreadable
from .options import corrected

FREE = ("data", "model", "task")
MAY_BE_NULL = ("scan", "recipe", "experiments", "debug")


def compose(arguments: Sequence[str], groups: Groups | None = None, allow: Sequence[str] = ()) -> Config:
    """The checked Config of a list of `group=option` and `key=value` arguments, in any order.

    Args:
        arguments: what was typed.
        groups: the options there are; None: those of this package.
        allow: further packages that a `_target_` may come from.

    Raises:
        UserError: whatever is wrong with them: option, key, type, range, a model of another domain.
    """
    groups = groups or Groups()
    overrides = parse(arguments)
    choices = [each for each in overrides if is_choice(each, groups)]
    settings = [each for each in overrides if not is_choice(each, groups)]
    for each in choices:
        _check_choice(each, groups)
    lines = [_line(each) if _text(each) is not None else f"~{each.key_or_group}" for each in choices]
    chosen = _run_hydra(lines, groups)
    more = _goes_with(chosen, choices, groups)
    if more:
        lines += more
        chosen = _run_hydra(lines, groups)
    _check_domains(chosen, groups)
    more = [_setting(each, chosen, groups) for each in settings]
    return check(_run_hydra(lines + more, groups) if more else chosen, allow)


def check(values: Mapping[str, Any], allow: Sequence[str] = ()) -> Config:
    """Plain values as a Config, after every key of data, model and task is found in what its `_target_` accepts.

    Args:
        values: a whole configuration.
        allow: further packages that a `_target_` may come from.

    Raises:
        UserError: an unknown or missing key, a value of the wrong type or outside its range.
    """
    for part in (*FREE, "trainer", "optimizer", "logger"):
        if values.get(part) is None:
            raise UserError(f"no {part} is chosen", do=f"{part}=<name>")
    config = Config.from_plain({"scan": None, **values})
    parse_duration(config.trainer.time_limit)
    for part in FREE:
        _check_part(part, values[part], allow)
    _check_scan(config)
    return config


def parse(arguments: Sequence[str]) -> list[Override]:
    """The arguments in Hydra's grammar.

    Raises:
        UserError: an argument that is not `key=value`.
    """
    parsed = []
    for argument in arguments:
        if argument.startswith("-"):
            raise UserError(
                f"there is no option {argument!r}",
                given=argument,
                allowed="key=value, --help, --list, --cfg, -m, --config-dir=<folder>, --allow=<package>",
                do=argument.lstrip("-") if "=" in argument else "python train.py --help",
            )
        if "=" not in argument and not argument.startswith("~"):
            raise UserError("not of the form key=value", given=argument, allowed="key=value", do=f"{argument}=<value>")
        try:
            parsed += OverridesParser.create().parse_overrides([argument])
        except HydraException as error:
            raise UserError(
                "this argument cannot be read", given=argument, allowed="key=value",
                do=corrected(argument, quoted(argument), arguments),
            ) from error  # fmt: skip
    return parsed


def quoted(argument: str) -> str:
    """`key=value` with the value in the quotes that Hydra's grammar asks for where it is not a plain word."""
    key, _, value = argument.partition("=")
    value = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'{key}="{value}"'


def is_choice(override: Override, groups: Groups) -> bool:
    """True for `model=vim`: an option of a group, not a value."""
    return override.key_or_group in groups.files


def _check_choice(override: Override, groups: Groups) -> None:
    group, name = override.key_or_group, _text(override)
    if name is None and group not in MAY_BE_NULL:
        raise UserError(f"a run needs a {group}", given=override.input_line, allowed=groups.options(group))
    groups.check(group, name)


def _goes_with(chosen: Mapping[str, Any], choices: Sequence[Override], groups: Groups) -> list[str]:
    """The choices that the data set asks for under `choose`, where nobody made another one; an experiment makes all of its own."""
    typed = {each.key_or_group for each in choices}
    wanted = (chosen.get("data") or {}).get("choose") or {}
    if "experiments" in typed:
        return []
    for group, name in wanted.items():
        groups.check(group, name)
    return [f"{group}={name}" for group, name in wanted.items() if group not in typed]


def compose_group(group: str, name: str, groups: Groups, domain: str) -> dict[str, Any]:
    """One group's resolved values in the context of a domain, as `group=name` would give them."""
    groups.check(group, name)
    return _run_hydra([f"domain={domain}", f"{group}={name}"], groups)[group]


def _run_hydra(lines: list[str], groups: Groups) -> dict[str, Any]:
    store = ConfigStore.instance()
    for name, path in groups.files["experiments"].items():
        if f"experiments={name}" in lines:
            store.store(group="experiments", name=name, node=read_yaml(path), package="_global_")
    more = [f"file://{folder}" for folder in groups.folders[1:]]
    if more:
        lines = [*lines, f"hydra.searchpath=[{','.join(more)}]"]
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(groups.folders[0])):
            return without_cards(
                OmegaConf.to_container(hydra_compose("train", overrides=lines), resolve=True, throw_on_missing=True)
            )
    except (YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        raise unreadable(mark.name if mark is not None else "a config", error) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(
            "the configs do not fit together",
            given=" ".join(lines) or "the defaults",
            allowed=str(error).splitlines()[0],
        ) from error


def without_cards(values: Mapping[str, Any]) -> dict[str, Any]:
    """A composed configuration without the cards of its parts and of its experiment, which are for people."""
    parts = {key: value for key, value in values.items() if key != "card"}
    return {
        key: {name: inner for name, inner in value.items() if name != "card"} if isinstance(value, dict) else value
        for key, value in parts.items()
    }


def _line(override: Override) -> str:
    return (override.input_line or "").lstrip("+")


def _text(override: Override) -> str | None:
    if override.is_delete():
        raise UserError("nothing can be deleted", given=override.input_line, do=f"{override.key_or_group}=null")
    if override.is_sweep_override():
        raise UserError(
            "several values at once need -m (one run each)", given=override.input_line,
            allowed="one value", do=f"python train.py -m {override.input_line}",
        )  # fmt: skip
    value = override.value()
    return None if value is None else str(value)


def _setting(override: Override, chosen: Mapping[str, Any], groups: Groups) -> str:
    """The Hydra line of a `key=value`, once the key is known to exist."""
    _text(override)
    key = override.key_or_group
    first, *rest = key.split(".")
    if _has(chosen, key):
        return f"++{_line(override)}"
    if first in FREE and rest and isinstance(chosen.get(first), Mapping):
        accepted = accepted_keys(chosen[first])
        if accepted is None or rest[0] in accepted:
            return f"++{_line(override)}"
        raise unknown_key(key, [f"{first}.{name}" for name in sorted(accepted)], override.value())
    if first in chosen and rest and isinstance(chosen[first], Mapping):
        within = [name for name in _leaves(chosen) if name.startswith(f"{first}.")]
        if within:
            raise unknown_key(key, within, override.value())
    accepted = {f"{part}.{name}" for part in FREE for name in accepted_keys(chosen.get(part) or {}) or ()}
    near = closest_key(key, [*sorted(groups.files), *_leaves(chosen), *sorted(accepted)])
    raise UserError(
        f"there is no key or group {key!r}",
        given=override.input_line,
        allowed=f"groups {', '.join(sorted(groups.files))}; keys {', '.join(k for k in chosen if k not in groups.files)}",
        do=f"{near}={override.input_line.partition('=')[2]}" if near else "python train.py --help lists every key",
    )


def accepted_keys(part: Mapping[str, Any]) -> set[str] | None:
    """The keys a free part may have: those of its file and those its `_target_` takes; None where that cannot be known."""
    found = signature.of(str(part.get("_target_", "")))
    if found is None or found.open:
        return None
    return (set(part) | set(found.parameters)) - {"_target_", "domains", "describe", "choose"}


def _check_part(part: str, values: Mapping[str, Any], allow: Sequence[str]) -> None:
    """Every key of a free part exists for its `_target_` and has the type written there."""
    if "_target_" not in values:
        raise UserError(
            f"the {part} has no _target_", given=f"{part}={values.get('name', '?')}", do="add it to the yaml"
        )
    check_listed(str(values["_target_"]), allow)
    found = signature.of(str(values["_target_"]))
    if found is None:
        return
    for key, value in values.items():
        if key in LABELS and key not in found.parameters:
            continue
        if key not in found.parameters:
            if found.open:
                continue
            raise unknown_key(f"{part}.{key}", [f"{part}.{name}" for name in sorted(found.parameters)], value)
        convert(value, found.parameters[key], f"{part}.{key}")


def _check_scan(config: Config) -> None:
    """A model that walks along a scan is given one."""
    found = signature.of(str(config.model["_target_"]))
    if config.scan is not None or found is None or "scan" not in found.parameters:
        return
    try:
        convert(None, found.parameters["scan"], "scan")
    except UserError as error:
        name = config.model.get("name", "?")
        do = "scan=bidirectional"
        raise UserError(f"model {name!r} needs a scan", given="scan=null", allowed="scan=<name>", do=do) from error


def _check_domains(chosen: Mapping[str, Any], groups: Groups) -> None:
    domain = chosen["domain"]
    for part in (*FREE, "scan"):
        values = chosen.get(part) or {}
        domains = values.get("domains", [domain])
        if domain in domains:
            continue
        name = values.get("name", "?")
        raise UserError(
            f"{part} {name!r} belongs to {' and '.join(domains)}, not to {domain}",
            given=f"domain={domain} {part}={name}",
            allowed=f"{part}s for {domain}: {', '.join(groups.for_domain(part, domain)) or 'none yet'}",
            do=f"domain={domains[0]} {part}={name}",
        )


def _has(values: Any, key: str) -> bool:
    for word in key.split("."):
        if not isinstance(values, Mapping) or word not in values:
            return False
        values = values[word]
    return True


def _leaves(values: Mapping[str, Any], path: str = "") -> list[str]:
    found = []
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            found += _leaves(value, f"{path}{key}.")
        elif key not in ("_target_", "domains", "choose"):
            found.append(f"{path}{key}")
    return found
