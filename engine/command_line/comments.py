"""The explanations that stand in configs/*.yaml, for --cfg and --help."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from .groups import CONFIGS, Groups, read_yaml


def explanations(values: Mapping[str, Any], groups: Groups) -> dict[str, str]:
    """What the config files say of each key, by its dotted name; of a group, what its file begins with."""
    found = comments(CONFIGS / "train.yaml")
    for group, files in groups.files.items():
        part = values.get(group)
        if not isinstance(part, Mapping):
            continue
        name = part.get("name", "default")
        if name in files:
            found[group] = groups.summary(group, name)
            shared = [
                each for each in read_yaml(files[name]).get("defaults", ()) if each.startswith("/") and "@" in each
            ]
            for place, at in (each.lstrip("/").split("@") for each in shared):
                found |= {f"{group}.{at}.{key}": text for key, text in comments(CONFIGS / f"{place}.yaml").items()}
            found |= {f"{group}.{key}": text for key, text in comments(files[name]).items()}
    return found


def comments(path: Path) -> dict[str, str]:
    """The comment behind each key of a YAML file, by the key's dotted name."""
    text = path.read_text(encoding="utf-8")
    return {key: said for key, line, column in _ends(text) if (said := _after(text.splitlines()[line][column:]))}


def commented(text: str, said: Mapping[str, str]) -> str:
    """YAML with a comment behind every key that there is something to say about."""
    lines = text.splitlines()
    for key, line, _ in _ends(text, of_keys=True):
        if said.get(key):
            lines[line] += f"  # {said[key]}"
    return "\n".join(lines) + "\n"


def _ends(text: str, of_keys: bool = False) -> list[tuple[str, int, int]]:
    """Every key's dotted name, and the line and column where its value ends, or where its line does (of_keys)."""
    found: list[tuple[str, int, int]] = []

    def walk(node: yaml.Node | None, path: str) -> None:
        for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
            name, mark = f"{path}{key.value}", key.end_mark if of_keys else value.end_mark
            found.append((name, mark.line, mark.column))
            if isinstance(value, yaml.MappingNode) and not value.flow_style:
                walk(value, f"{name}.")

    walk(yaml.compose(text, Loader=yaml.SafeLoader), "")
    return [each for each in found if each[1] < len(text.splitlines())]


def _after(rest: str) -> str:
    before, mark, said = rest.partition("#")
    return said.strip() if mark and not before.strip() else ""
