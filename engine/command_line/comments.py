"""The explanations that stand in configs/*.yaml, for --cfg and --help."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from .groups import CONFIGS, ROOT, Groups
from .yaml_files import Loader, read_yaml


def explanations(values: Mapping[str, Any], groups: Groups) -> dict[str, str]:
    """What the config files say of each key, by its dotted name; of a group, what its file begins with."""
    found, domain = comments(CONFIGS / ROOT), str(values["domain"])
    for group, files in groups.files(domain).items():
        part = values.get(group)
        name = part.get("name", "default") if isinstance(part, Mapping) else None
        if name in files:
            found[group] = groups.summary(group, name, domain)
            said = option_comments(files[name], groups.search_path(domain))
            found |= {f"{group}.{key}": text for key, text in said.items()}
    return found


def option_comments(path: Path, places: Sequence[Path]) -> dict[str, str]:
    """The comments of an option's file and of the files that its defaults list names, which are below its folder or `places`."""
    found: dict[str, str] = {}
    for each in read_yaml(path).get("defaults", ()):
        if isinstance(each, str) and each != "_self_":
            where, _, at = each.partition("@")
            among = [place / where.lstrip("/") for place in places] if where.startswith("/") else [path.parent / where]
            base = next((file for file in (each.with_suffix(".yaml") for each in among) if file.is_file()), None)
            prefix = f"{at}." if at not in ("", "_here_") else ""
            found |= {f"{prefix}{key}": text for key, text in (option_comments(base, places) if base else {}).items()}
    return found | comments(path)


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
            # Behind the first line of a text of several lines, a comment would be a part of the text.
            if not (of_keys and isinstance(value, yaml.ScalarNode) and value.end_mark.line > key.end_mark.line):
                found.append((name, mark.line, mark.column))
            if isinstance(value, yaml.MappingNode) and not value.flow_style:
                walk(value, f"{name}.")

    walk(yaml.compose(text, Loader=Loader), "")
    return [each for each in found if each[1] < len(text.splitlines())]


def _after(rest: str) -> str:
    before, mark, said = rest.partition("#")
    return said.strip() if mark and not before.strip() else ""
