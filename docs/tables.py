"""Writes what README.md and experiments/RESULTS.md take from the cards and from experiments/results: make readme."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import yaml

from polymamba.core.errors import UserError
from polymamba.engine.command_line.listing import Entry, domains, entries

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "experiments" / "results"
ARXIV = re.compile(r"arXiv:(\d{4}\.\d{5})")
EXTRA = {
    "microseconds_per_token": "µs a token", "megabytes": "MB", "gigabytes_per_second": "GB/s read",
    "alone": "with kernels and products alone",
}  # fmt: skip


def files() -> dict[Path, str]:
    """The files that are generated, or parts of which are, with what they are to hold."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    readme = put(put(readme, "models", models_table()), "measured", headlines())
    return {ROOT / "README.md": readme, ROOT / "experiments" / "RESULTS.md": results_page()}


def put(text: str, name: str, lines: Iterable[str]) -> str:
    """A page with what stands between its marks of that name replaced.

    Raises:
        UserError: the marks are not there, once each.
    """
    begin, end = f"<!-- {name}: make readme -->\n", f"<!-- end of {name} -->\n"
    if text.count(begin) != 1 or text.count(end) != 1:
        raise UserError(
            "the page has no place for a table", given=name, do=f"write {begin.strip()} and {end.strip()} once"
        )
    before, after = text.partition(begin)[0], text.partition(end)[2]
    return before + begin + "\n" + "\n".join(lines) + "\n\n" + end + after


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A Markdown table, a line at a time."""
    for row in (columns, ["---"] * len(columns), *rows):
        yield "| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |"


def linked(text: str) -> str:
    """The text with its arXiv numbers as links."""
    return ARXIV.sub(r"[\1](https://arxiv.org/abs/\1)", text)


def models_table() -> Iterator[str]:
    """What there is, a row for each domain, and below it every scan."""
    scans = entries("scans")
    rows = []
    for name, domain in domains().items():
        axes = set(domain.card["axes"])
        walked = sum(bool(axes & set(each.card["axes"])) for each in scans)
        words = f"the {walked} of {_axes(sorted(axes))}"
        models = ", ".join(map(_model, _of("models", name)))
        data = ", ".join(f"`{each.name}`" for each in _of("data", name))
        note = domain.card.get("note")
        rows.append([f"`{name}`: {domain.card['title']}", models, data, words + (f"; {note}" if note else "")])
    yield from table(["domain", "models, parameters", "data", "scans"], rows)
    yield ""
    for axes in sorted({tuple(each.card["axes"]) for each in scans}, key=lambda axes: (-len(axes), axes)):
        names = ", ".join(f"`{each.name}`" for each in scans if tuple(each.card["axes"]) == axes)
        yield f"- scans of {_axes(axes)}: {names}"


def _axes(axes: Sequence[int]) -> str:
    *most, last = map(str, axes)
    return f"{', '.join(most)}{' or ' if most else ''}{last} {'axis' if last == '1' else 'axes'}"


def _of(kind: str, domain: str) -> list[Entry]:
    return [each for each in entries(kind) if domain in each.domains]


def _model(model: Entry) -> str:
    """A model's name, with its paper behind it, and its parameters from the first size to the last."""
    counts = [each.split()[-1] for each in model.cell("parameters").split(", ") if each]
    paper = ARXIV.fullmatch(str(model.card.get("paper", "")))
    name = f"[`{model.name}`](https://arxiv.org/abs/{paper.group(1)})" if paper else f"`{model.name}`"
    return " ".join([name, *counts[:1], *([f"to {counts[-1]}"] if len(counts) > 1 else [])])


def written_results() -> dict[Path, dict]:
    """The results written down by hand, by their files."""
    return {path: yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.yaml"))}


def headlines() -> list[str]:
    """The results that README names, a line each."""
    return [f"- {result['headline']}" for result in written_results().values() if "headline" in result]


def results_page() -> str:
    """experiments/RESULTS.md: every results file, with the picture of its name if there is one."""
    lines = ["# Measured", "", "Written by `make readme` from `experiments/results/`.", ""]
    for path, result in written_results().items():
        lines += [f"## {result['title']}", ""]
        facts = [str(result[key]) for key in ("machine", "date") if key in result]
        command = " ".join(str(result.get("command", "")).split())
        lines += [", ".join(facts) + (f". `{command}`" if command else "") if facts else f"`{command}`", ""]
        lines += [result["text"].strip(), ""]
        if "rows" in result:
            lines += [*table(result["columns"], result["rows"]), ""]
        if (picture := path.with_suffix(".png")).is_file():
            lines += [f"![{result['title']}](results/{picture.name})", ""]
        if path.stem in MEASURED:
            lines += [*MEASURED[path.stem](), ""]
        if "notes" in result:
            lines += [result["notes"].strip(), ""]
    return "\n".join(lines).rstrip() + "\n"


def measured_here() -> list[dict]:
    """What `make bench` has measured, a file for each machine."""
    return [json.loads(path.read_text()) for path in sorted(RESULTS.glob("benchmark_*.json"))]


def speed() -> Iterator[str]:
    """One row for each ratio that `make bench` measures, a column for each machine; and the machines' pictures."""
    machines = measured_here()
    cells: dict[tuple[str, str, str], dict[int, str]] = {}
    for number, results in enumerate(machines):
        for row in results["rows"]:
            if row["suite"] == PROFILE:
                continue
            key = (row["suite"], f"{row['what']} / {row['against']}", row["case"])
            cells.setdefault(key, {})[number] = _ratio(row)
    heads = [f"{each['machine'].get('gpu', each['machine']['processor'])}, {each['date']}" for each in machines]
    rows = [[*key, *(found.get(number, "") for number in range(len(machines)))] for key, found in cells.items()]
    yield from table(["suite", "ratio", "of", *heads], rows)
    yield ""
    for path in sorted(RESULTS.glob("benchmark_*.png")):
        yield f"![Ratios and time per token, {path.stem.removeprefix('benchmark_')}](results/{path.name})"


def profile() -> Iterator[str]:
    """Where the time of training steps over sequences of 256 tokens goes, machine by machine."""
    for results in measured_here():
        rows = [row for row in results["rows"] if row["suite"] == PROFILE and row["case"].endswith("x 256 tokens")]
        if not rows:
            continue
        shares = [dict(share.rsplit(" ", 1) for share in row["what"].split(", ")) for row in rows]
        cells = []
        for row, own in zip(rows, shares, strict=True):
            layers = row["linear_layers"] + row["products"]
            ratios = (_figures(spent / layers) for spent in (row["ms"], layers + row["kernels"]))
            cells.append([row["case"], _figures(row["ms"]), *own.values(), *ratios])
        heads = (*(name.replace("_", " ") for name in shares[0]), "step / products", "with kernels alone")
        yield from table(["training step", "ms", *heads], cells)


PROFILE = "profile"
# Results that have their table from what `make bench` writes.
MEASURED = {"speed": speed, PROFILE: profile}


def _ratio(row: dict) -> str:
    beside = [f"{_figures(row['ms'])} / {_figures(row['against_ms'])} ms"] if "ms" in row else []
    beside += [f"{row[key]:.3g} {unit}" for key, unit in EXTRA.items() if key in row]
    if "threads" in row:
        beside.append(f"{row['threads']} thread{'s' if row['threads'] > 1 else ''}")
    return _figures(row["ratio"]) + (f" ({', '.join(beside)})" if beside else "")


def _figures(number: float) -> str:
    """Three figures, those before the point all: 0.967, 14.0, 2,180."""
    return f"{number:,.0f}" if number >= 100 else f"{number:#.3g}"


def main() -> int:
    try:
        wanted = files()
    except UserError as error:
        print(f"\n{error}\n", file=sys.stderr)
        return 2
    for path, text in wanted.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"written: {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
