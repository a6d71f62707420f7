"""From what was typed (`model=NAME scan=local scan.window=4`) to a checked Config, without importing torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ...core.errors import UserError, closest_key
from ..training.duration import parse_duration
from ..training.targets import check_listed
from . import signature
from .arguments import check_single, parse
from .config import Config
from .config_source import on_search_path
from .convert import convert, unknown_key
from .groups import EXPERIMENTS, Groups
from .part_keys import FREE, check_keys, full_key, lifted, no_target, typed_keys
from .yaml_files import read_yaml

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
    for each in overrides:
        check_single(each)
    chosen = {each.key_or_group: each for each in overrides if each.key_or_group in groups.names}
    domain, lines = _choices(chosen, groups)
    with _explained(lines):
        config = _run_hydra(domain, lines, groups)
        known = _plain(config, resolve=False)
        for each in overrides:
            if each.key_or_group not in groups.names:
                lines.append(each.input_line)
                OmegaConf.update(config, _key(each, known, groups), each.value(), merge=True, force_add=True)
        values = _plain(config)
    return check(values, allow)


def check(values: Mapping[str, Any], allow: Sequence[str] = ()) -> Config:
    """Plain values as a Config, after every key of data, model and task is found in what its `_target_` accepts.

    Args:
        values: a whole configuration, also one from before keys stood in nested parts.
        allow: further packages that a `_target_` may come from.

    Raises:
        UserError: an unknown or missing key, a value of the wrong type or outside its range.
    """
    for part in (*FREE, "trainer", "optimizer", "logger"):
        if values.get(part) is None:
            raise UserError(f"no {part} is chosen", do=f"{part}=<name>")
    values = lifted(values)
    config = Config.from_plain({"scan": None, **values})
    parse_duration(config.trainer.time_limit)
    for part in FREE:
        if "_target_" not in values[part]:
            raise no_target(part, values[part])
        check_listed(str(values[part]["_target_"]), allow)
        check_keys(part, values[part])
    _check_scan(config)
    return config


def compose_group(group: str, name: str, groups: Groups, domain: str) -> dict[str, Any]:
    """One group's resolved values in the context of a domain, as `group=name` would give them."""
    groups.read(group, name, domain)
    lines = [f"{group}={name}"]
    with _explained(lines):
        return lifted(_plain(_run_hydra(domain, lines, groups)))[group]


def _choices(typed: Mapping[str, Override], groups: Groups) -> tuple[str, list[str]]:
    """The domain of a run, and `group=option` for each group that was typed, or that data set, task or model bring."""
    names = {group: None if each.value() is None else str(each.value()) for group, each in typed.items()}
    for group, name in names.items():
        if name is None and group not in MAY_BE_NULL:
            options = groups.options(group, groups.domain_of(None))
            raise UserError(f"a run needs a {group}", given=typed[group].input_line, allowed=options)
    domain = names.pop("domain", None) or groups.domain_of(names.get("experiments"))
    brought = groups.domain_file(domain)
    read = {group: groups.read(group, name, domain) for group, name in names.items() if name is not None}
    experiment = read.get("experiments")
    wanted = {}
    for part in ("data", "task", "model"):
        if part in read:
            wanted |= read[part].get("choose") or {}
        elif experiment is None and (name := _defaults(brought).get(part)):
            wanted |= groups.read(part, name, domain).get("choose") or {}
    settled = {**_defaults(experiment or {}), **names}  # what an experiment chooses goes together already
    wanted = {group: name for group, name in wanted.items() if group not in settled}
    for group, name in wanted.items():
        if name is not None:
            groups.read(group, name, domain)
    names = {**wanted, **names}
    # `experiments` is no folder of configs/: to leave it as it is, null, nothing may be said about it.
    chosen = {group: name for group, name in names.items() if name is not None or group != "experiments"}
    return domain, [f"~{group}" if name is None else f"{group}={name}" for group, name in chosen.items()]


def _defaults(values: Mapping[str, Any]) -> dict[str, str | None]:
    """The options that a file's defaults choose, of the groups that they name."""
    chosen = [each for each in values.get("defaults", ()) if isinstance(each, Mapping)]
    overrides = [(key.split()[-1].lstrip("/"), name) for each in chosen for key, name in each.items()]
    return dict(overrides)


def _run_hydra(domain: str, lines: Iterable[str], groups: Groups) -> DictConfig:
    """The configuration of some choices, its interpolations as they are written."""
    store = ConfigStore.instance()
    folders = [on_search_path(folder) for folder in groups.search_path(domain)]
    store.store(name="train", node=groups.root | {"hydra": {"searchpath": folders}})
    for name, path in groups.files(domain)["experiments"].items():
        # Those of a user's own folder are on Hydra's search path.
        if f"experiments={name}" in lines and path.is_relative_to(groups.experiments):
            store.store(group="experiments", name=name, node=read_yaml(path), package="_global_")
    # Hydra asks for one folder of its own reading; what it reads stands on the search path and in the store.
    with initialize_config_dir(version_base="1.3", config_dir=str(EXPERIMENTS)):
        return hydra_compose("train", overrides=[*lines, f"domain={domain}"])


@contextmanager
def _explained(lines: list[str]):
    """What Hydra or OmegaConf objects to, as a UserError."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(
            "the configs do not fit together",
            given=" ".join(lines) or "the defaults",
            allowed=str(error).splitlines()[0],
        ) from error


def _plain(config: DictConfig, resolve: bool = True) -> dict[str, Any]:
    """Plain values without the cards of the files that they come from."""
    values = OmegaConf.to_container(config, resolve=resolve, throw_on_missing=resolve)
    parts = {key: value for key, value in values.items() if key != "card"}
    for value in parts.values():
        if isinstance(value, dict):
            value.pop("card", None)
    return parts


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


def _key(override: Override, known: Mapping[str, Any], groups: Groups) -> str:
    """The whole key that a `key=value` means, once it is known to exist."""
    key, value = override.key_or_group, override.value()
    part, *rest = key.split(".")
    if part in FREE and rest and isinstance(known.get(part), Mapping):
        accepts = signature.of(str(known[part].get("_target_", "")))
        key = full_key(part, accepts, ".".join(rest), value)
        accepted = typed_keys(part, known[part])
        if _has(known, key) or accepted is None or key.split(".")[1] in accepts.parameters:
            return key
        raise unknown_key(override.key_or_group, accepted, value)
    if _has(known, key):
        return key
    leaves = {name for name in _leaves(known) if name.partition(".")[0] not in FREE}
    within = [name for name in leaves if name.startswith(f"{part}.")]
    if rest and within:
        raise unknown_key(key, within, value)
    accepted = {name for each in FREE for name in typed_keys(each, known.get(each) or {}) or ()}
    near = closest_key(key, sorted([*groups.names, *leaves, *accepted]))
    raise UserError(
        f"there is no key or group {key!r}",
        given=override.input_line,
        allowed=f"groups {', '.join(groups.names)}; keys {', '.join(k for k in known if k not in groups.names)}",
        do=f"{near}={override.input_line.partition('=')[2]}" if near else "python train.py --help lists every key",
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
        elif key not in signature.LABELS:
            found.append(f"{path}{key}")
    return found
