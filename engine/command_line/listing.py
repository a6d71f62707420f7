"""--list: the models, data sets, scans and experiments there are, from the cards at the head of their YAML files."""

from __future__ import annotations

import fnmatch
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...core.errors import UserError, closest
from .groups import CONFIGS, DOMAIN, EXPERIMENTS
from .options import Options
from .yaml_files import parsed

KINDS = {"models": "model", "data": "data", "scans": "scan", "experiments": "experiments"}
COLUMNS = {
    "models": ("name", "domain", "title", "parameters", "paper", "needs"),
    "data": ("name", "domain", "title", "size", "licence", "needs"),
    "scans": ("name", "title", "axes", "parameters", "paper"),
    "experiments": ("name", "domain", "title", "paper", "published", "measured"),
}
NO_PARAMETERS = ("card", "name", "_target_", "domains", "choose", "defaults")  # of a scan


@dataclass(frozen=True)
class Entry:
    """A model, data set, scan, experiment or domain that may be chosen.

    Args:
        name: what is typed.
        domains: where it belongs; empty: everywhere.
        card: what its file says of it.
        values: the file's other keys.
    """

    name: str
    domains: tuple[str, ...]
    card: Mapping[str, Any]
    values: Mapping[str, Any]

    def cell(self, column: str) -> str:
        """What a table says of it."""
        if column == "name":
            return self.name
        if column == "domain":
            return ", ".join(self.domains)
        if column == "axes":
            return ", ".join(map(str, self.card.get("axes", ())))
        if column == "parameters" and "sizes" in self.card:
            return ", ".join(f"{size} {rounded(count)}" for size, count in self.card["sizes"].items())
        if column == "parameters":
            if (
                "axes" not in self.card
            ):  # a scan's are its own; a model's are what it learns, where its card counts them
                return ""
            return ", ".join(f"{key}={_typed(value)}" for key, value in self.values.items() if key not in NO_PARAMETERS)
        said = self.card.get(column, "")
        return "; ".join(map(_in_words, said)) if isinstance(said, list) else str(said)


def domains(folders: Sequence[Path] = ()) -> dict[str, Entry]:
    """The domains by name.

    Args:
        folders: more folders laid out like configs/.
    """
    found = {}
    for folder in (CONFIGS, *folders):
        found |= {path.parent.name: _read(path.parent.name, path, ()) for path in sorted(folder.glob(f"*/{DOMAIN}"))}
    return found


def entries(kind: str, folders: Sequence[Path] = ()) -> list[Entry]:
    """What may be chosen of a kind ("models", "data", "scans", "experiments"), by domain and name.

    Args:
        folders: more folders laid out like configs/.

    Raises:
        UserError: a file that is no YAML.
    """
    known, group = list(domains(folders)), KINDS[kind]
    places = [(folder / group, ()) for folder in (CONFIGS, *folders)]
    places += [(folder / name / group, (name,)) for folder in (CONFIGS, *folders) for name in known]
    if kind == "experiments":
        places += [(EXPERIMENTS / name, (name,)) for name in known]
    found = [_read(path.stem, path, within) for place, within in places for path in sorted(place.glob("*.yaml"))]
    return sorted(found, key=lambda each: (each.domains, each.name)) if kind != "scans" else found


def _read(name: str, path: Path, within: tuple[str, ...]) -> Entry:
    values = parsed(path)
    card = values.get("card")
    return Entry(name, within or tuple(values.get("domains", ())), card if isinstance(card, dict) else {}, values)


def show_list(arguments: Sequence[str], options: Options) -> int:
    """Prints what was asked for: `--list [models|data|scans|experiments] [domain] [pattern]`, in any order.

    A table in a terminal, aligned lines in a pipe; of a name without *, the whole card.

    Raises:
        UserError: a word that is no kind, no domain and matches no name.
    """
    chosen, named = _chosen(arguments, options.config_dirs)
    for number, (kind, found) in enumerate(chosen.items()):
        if len(chosen) > 1:
            print("\n" * (number > 0) + kind)
        if named or not found:
            print("\n".join(line for each in found for line in _whole(each)) or "nothing yet")
        else:
            _print_table(COLUMNS[kind], [[each.cell(column) for column in COLUMNS[kind]] for each in found])
    return 0


def _chosen(arguments: Sequence[str], folders: Sequence[Path]) -> tuple[dict[str, list[Entry]], bool]:
    """The entries to print, by kind; and whether they were named one by one."""
    known = domains(folders)
    singular = {kind.removesuffix("s"): kind for kind in KINDS}
    kinds, within, patterns = [], None, []
    for word in (each.removeprefix("--list=").removeprefix("domain=") for each in arguments if each != "--list"):
        if word in KINDS or word in singular:
            kinds.append(singular.get(word, word))
        elif word in known:
            within = word
        else:
            patterns.append(word)
    everything = {kind: _of_domain(kind, entries(kind, folders), known.get(within)) for kind in kinds or KINDS}
    if not patterns:
        return {kind: found for kind, found in everything.items() if found or kinds}, False
    chosen = {
        kind: [each for each in found if any(fnmatch.fnmatch(each.name.lower(), word.lower()) for word in patterns)]
        for kind, found in everything.items()
    }
    names = [each.name for found in everything.values() for each in found]
    if not any(chosen.values()):
        near = closest(" ".join(patterns), [*names, *KINDS, *known])
        raise UserError(
            "nothing is called that", given=" ".join(arguments),
            allowed=names if kinds else f"{', '.join(KINDS)}; {', '.join(known)}; a name, * for any letters",
            do=f"python train.py --list {near}" if near else "python train.py --list",
        )  # fmt: skip
    return {kind: found for kind, found in chosen.items() if found}, not any(
        set("*?[") & set(each) for each in patterns
    )


def _of_domain(kind: str, found: Sequence[Entry], domain: Entry | None) -> list[Entry]:
    if domain is None:
        return list(found)
    if kind == "scans":
        axes = set(domain.card.get("axes", ()))
        return [each for each in found if not axes or axes & set(each.card.get("axes", axes))]
    return [each for each in found if domain.name in (each.domains or (domain.name,))]


def _whole(entry: Entry) -> Iterator[str]:
    """Everything that an entry's card says, a line each."""
    yield f"{entry.name}: {entry.card.get('title', '')}".rstrip(": ")
    if entry.domains:
        yield f"  domain: {', '.join(entry.domains)}"
    for key, said in entry.card.items():
        if key == "sizes":
            yield "  parameters: " + ", ".join(f"{size} {count:,}" for size, count in said.items())
        elif isinstance(said, list) and any(isinstance(each, dict) for each in said):
            yield f"  {key}:"
            yield from (f"    {_in_words(each)}" for each in said)
        elif key != "title":
            yield f"  {key}: {entry.cell(key)}"
    if "axes" in entry.card and entry.cell("parameters"):
        yield f"  parameters: {entry.cell('parameters')}"


def _print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    kept = [place for place in range(len(columns)) if place == 0 or any(row[place] for row in rows)]
    heads, cells = [columns[place] for place in kept], [[row[place] for place in kept] for row in rows]
    if not sys.stdout.isatty():
        widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
        for row in (heads, *cells):
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(*heads, box=None, pad_edge=False)
    for place, column in enumerate(table.columns):
        column.no_wrap, column.overflow, column.min_width = place == 0, "fold", len(heads[place])
    for row in cells:
        table.add_row(*row)
    Console(file=sys.stdout, markup=False, highlight=False).print(table)


def rounded(count: int) -> str:
    """165K for 165,130; 7.1M; 2.8B."""
    for unit, size in (("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if count >= size:
            return f"{count / size:.1f}{unit}" if count < 10 * size else f"{count / size:.0f}{unit}"
    return str(count)


def _in_words(row: Any) -> str:
    if not isinstance(row, dict):
        return str(row)
    of = f" ({row['of']})" if row.get("of") else ""
    return f"{row.get('data')}, {row.get('metric')}: {row.get('value')}{of}"


def _typed(value: Any) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)
