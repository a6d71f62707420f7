"""YAML files, read and written as OmegaConf does it, by libyaml where PyYAML was built with it: ten times as quick."""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from yaml import YAMLError

from ...core.errors import UserError


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """YAML as OmegaConf reads it: 1e-3 is a number, a date a word, a key that stands twice a mistake."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [(key.tag, key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for place, key in enumerate(keys):
            if key in keys[:place]:
                mark = node.value[place][0].start_mark
                raise yaml.constructor.ConstructorError(None, None, f"found duplicate key {key[1]}", mark)
        return super().construct_mapping(node, deep)


Loader.yaml_implicit_resolvers = {
    letter: [each for each in known if each[0] != "tag:yaml.org,2002:timestamp"]
    for letter, known in Loader.yaml_implicit_resolvers.items()
}


class Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):
    """YAML that `Loader` reads as it was: the word "1e-3" in quotes."""


for each in (Loader, Dumper):
    each.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?\d[\d_]*(\.[\d_]*)?[eE][-+]?\d+$"), list("-+0123456789")
    )


def read_yaml(path: Path) -> dict[str, Any]:
    """The plain content of a YAML file of keys, interpolations as they are written.

    Raises:
        UserError: it is none; the message names the line.
    """
    return deepcopy(parsed(path))


def parsed(path: Path) -> dict[str, Any]:
    """As `read_yaml`, but everybody is given the same: not to be changed."""
    try:
        values = _read(path, path.stat().st_mtime_ns)
    except (OSError, ValueError, YAMLError) as error:
        raise unreadable(path, error) from error
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no keys", given=type(values).__name__, allowed="lines of the form key: value")
    return values


@cache
def _read(path: Path, changed: int) -> Any:
    # One start asks for a file several times: what it offers, what goes with it, what it says of its keys.
    return yaml.load(path.read_text(encoding="utf-8"), Loader=Loader) or {}


def unreadable(path: Path | str, error: Exception) -> UserError:
    """The error for a YAML file that cannot be read: which line, and why."""
    mark = getattr(error, "problem_mark", None)
    line = f", line {mark.line + 1}" if mark is not None else ""
    why = getattr(error, "problem", None) or str(error).partition("\n")[0] or type(error).__name__
    does = {"tab": "indent with spaces", "\\t": "indent with spaces", "duplicate": "each key once"}
    do = next((does[word] for word in does if word in why), "write it as key: value")
    return UserError(f"{path} cannot be read", given=f"{why}{line}", allowed="a YAML file", do=do)


def to_yaml(values: Mapping[str, Any]) -> str:
    """Plain values as YAML, in their order."""
    return yaml.dump(dict(values), Dumper=Dumper, default_flow_style=False, sort_keys=False, allow_unicode=True)
