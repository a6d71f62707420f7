"""-m experiments=NAME where NAME's card holds a table: every row with every seed, and what came of them.

    card:
      title: Two widths, one budget
      table:
        seeds: [0, 1, 2]
        budget: 5m          # CPU time of a run's training: the steps that fit are measured; left out: what its arguments say
        rows:               # what the table says: what is typed
          wide: model.width=64
          narrow, deep: model.width=16 model.depth=8
        columns:            # what the table says: a test metric, a column of metrics.csv, `steps` or `cpu_seconds_per_step`
          accuracy: accuracy
          CPU seconds: cpu_seconds
          CPU seconds a step: cpu_seconds_per_step

A run that has its test result is not repeated, one that was stopped goes on: the same command finishes what is left, and
rows='narrow*' trains those rows alone. The runs lie
in runs/<domain>/NAME/ (or run_dir), beside them table.yaml, a results file as docs/tables.py reads them, and curves.png. Each run
has a process of its own, so that its memory is its own and one that the system kills takes no other along.
"""

from __future__ import annotations

import json
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from ...core.errors import UserError, closest
from ..callbacks.table import Table
from ..training.duration import parse_duration
from ..training.run_folder import CHECKPOINTS, ENVIRONMENT, METRICS, read_config, write_text
from ..training.stop import Stopped
from .comparison_curves import save_curves
from .compose import compose
from .options import Options
from .sweep import combinations

WARM_UP, MEASURED = 4, 12  # steps that compile and fill caches, and all that a budget is measured with
TABLE, CURVES = "table.yaml", "curves.png"
EXAMPLE = "rows: {wide: model.width=64}, columns: {accuracy: accuracy}, seeds: [0, 1, 2], budget: 5m"
Figures = dict[str, float]


@dataclass(frozen=True)
class Comparison:
    """What a card's `table` asks for.

    Args:
        rows: label -> arguments.
        columns: heading -> test metric, column of metrics.csv, "steps" or "cpu_seconds_per_step" (their mean).
        seeds: every row is trained with each.
        budget: CPU time of one run's training; None: as long as its arguments say.

    Raises:
        UserError: no rows or columns, an unknown key, a seed that is no number, a budget that is no time.
    """

    rows: Mapping[str, str]
    columns: Mapping[str, str]
    seeds: Sequence[int] = (0,)
    budget: str | None = None
    text: str = ""
    seconds: float | None = field(init=False)

    def __post_init__(self) -> None:
        named = isinstance(self.rows, Mapping) and isinstance(self.columns, Mapping) and self.rows and self.columns
        if not named or not self.seeds or not all(type(seed) is int for seed in self.seeds):
            given = f"rows {self.rows}, columns {self.columns}, seeds {self.seeds}"
            raise UserError("this table cannot be made", given=given, allowed=EXAMPLE)
        duration = parse_duration(self.budget)
        object.__setattr__(self, "seconds", duration and duration.total_seconds())

    @classmethod
    def of(cls, table: Any) -> Comparison:
        """What stands under a card's `table`.

        Raises:
            UserError: a key that there is not, or one that is missing.
        """
        keys = ("rows", "columns", "seeds", "budget", "text")
        given = list(table) if isinstance(table, Mapping) else [repr(table)]
        wrong = [key for key in given if key not in keys]
        if wrong or not {"rows", "columns"} <= {*given}:
            near = closest(wrong[0], keys) if wrong else None
            raise UserError(
                "this table cannot be made", given=", ".join(given), allowed=EXAMPLE, do=near and f"{near}: …"
            )
        return cls(**table)

    def chosen(self, pattern: str) -> dict[str, str]:
        """The rows whose label a pattern with * and ? fits.

        Raises:
            UserError: it fits none.
        """
        found = {label: typed for label, typed in self.rows.items() if fnmatchcase(label, pattern)}
        if not found:
            raise UserError("no row fits", given=f"rows={pattern}", allowed="; ".join(self.rows), do="rows='*'")
        return found


def asked_for(options: Options) -> tuple[str, Mapping[str, Any]] | None:
    """The experiment that was typed and its card, where that holds a table."""
    typed = dict(each.split("=", 1) for each in options.arguments if "=" in each)
    name, groups = typed.get("experiments"), options.groups()
    if name is None or "," in name:
        return None
    card = groups.read("experiments", name, typed.get("domain") or groups.domain_of(name)).get("card") or {}
    return (name, card) if "table" in card else None


def compare(options: Options, name: str, card: Mapping[str, Any]) -> int:
    """Trains every row of an experiment's table with every seed, prints and writes the table.

    Returns:
        0, or 1 where a run broke down; the others are made all the same.

    Raises:
        UserError: what a row says cannot be run; nothing has started then.
        Stopped: a signal came; the run that it met has its checkpoint.
    """
    comparison = Comparison.of(card["table"])
    fixed, seeds, base, pattern = _typed(options, comparison)
    rows = {label: [*fixed, *shlex.split(typed or "")] for label, typed in comparison.chosen(pattern).items()}
    configs = [compose([*typed, f"seed={seeds[0]}"], options.groups(), options.allow) for typed in rows.values()]
    if options.show_config:
        from .main import show

        return max(show(config, options) for config in configs)
    config = configs[0]
    folder = Path(base or Path("runs", config.domain, name))
    broken = 0
    for label, typed in rows.items():
        steps: list[str] = []
        for seed in seeds:
            run = folder / f"{_slug(label)}-{seed}"
            if _test_row(run):
                continue
            print(f"\n{label}, seed {seed}", flush=True)
            if comparison.seconds and not any(each.startswith("trainer.steps=") for each in typed):
                steps = steps or _steps(options, typed, folder, label, comparison.seconds)
            broken += _train(options, run, [*typed, *steps, f"seed={seed}"]) != 0
    lines = results(folder, comparison, seeds)
    print("\n".join(["", *_aligned([["", *comparison.columns], *lines]), ""]))
    _write(folder, comparison, str(card.get("title", name)), options, lines)
    return int(broken > 0)


def _typed(options: Options, comparison: Comparison) -> tuple[list[str], Sequence[int], str | None, str]:
    """What was typed for all rows, the seeds, the folder and the pattern of rows."""
    fixed, seeds, base, pattern = [], comparison.seeds, None, "*"
    for each in options.arguments:
        key, _, value = each.partition("=")
        if key == "seed":
            if not re.fullmatch(r"\d+(,\d+)*", value):
                raise UserError("these are no seeds", given=each, allowed="seed=0 or seed=0,1,2")
            seeds = [int(word) for word in value.split(",")]
        elif key == "run_dir":
            base = value
        elif key == "rows":
            pattern = value
        elif len(combinations((each,))) > 1:
            raise UserError("the rows of a table stand in its card", given=each, allowed="one value")
        else:
            fixed.append(each)
    return fixed, seeds, base, pattern


def _steps(options: Options, typed: Sequence[str], folder: Path, label: str, seconds: float) -> list[str]:
    """The steps that a budget of CPU seconds is enough for: as another seed's run was given, else measured."""
    for run in _runs(folder, label):
        trainer = read_config(run)["trainer"] if (run / "config.yaml").is_file() else {}
        if trainer.get("steps"):
            return [f"trainer.steps={trainer['steps']}", f"trainer.epochs={trainer['epochs']}"]
    short = (
        f"trainer.steps={MEASURED}", "trainer.log_every=1", "trainer.limit_val=1", "trainer.limit_test=1",
        "trainer.pictures=false", "trainer.progress=none", f"trainer.epochs={MEASURED}",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch, "run")
        code = _train(options, run, [*typed, *short], quiet=True)
        rows = [row for row in _read(run) if row["stage"] == "train"]
    if code or len(rows) < 2:
        return []  # the run itself will say what is wrong
    first = next((row for row in rows if int(row["step"]) >= WARM_UP), rows[0])
    last = rows[-1]
    spent = float(last["cpu_seconds"]) - float(first["cpu_seconds"])
    steps = max(1, round(seconds * (int(last["step"]) - int(first["step"])) / max(spent, 1e-6)))
    print(f"  {steps:,} steps in {seconds:,.0f} s of CPU time, {seconds / steps:.3g} s each")
    return [f"trainer.steps={steps}", f"trainer.epochs={steps}"]


def _train(options: Options, run: Path, typed: Sequence[str], quiet: bool = False) -> int:
    """Trains one run, or goes on with it, in a process of its own; returns its exit code."""
    goes_on = any(run.glob(f"{CHECKPOINTS}/[!.]*"))
    words = [f"resume={run}"] if goes_on else [*typed, f"run_dir={run}"]
    command = options.command("train.py", *words)
    nowhere = subprocess.DEVNULL if quiet else None
    with subprocess.Popen([sys.executable, *shlex.split(command)[1:]], stdout=nowhere, stderr=nowhere) as process:
        try:
            return process.wait()
        except Stopped as stopped:
            process.send_signal(stopped.exit_code - 128)
            process.wait()
            raise


def _read(run: Path) -> list[dict[str, str]]:
    """The rows of a run's metrics.csv, without their empty cells; none where it has none."""
    return Table(run / METRICS).rows


def _test_row(run: Path) -> dict[str, str]:
    """A finished run's test result; empty where there is none yet."""
    return next((row for row in _read(run) if row["stage"] == "test"), {})


def figures(run: Path) -> Figures:
    """What a finished run came to: test metrics, its last training row, its largest memory; empty before its end."""
    test = {name.removeprefix("test/"): value for name, value in _test_row(run).items() if name.startswith("test/")}
    if not test:
        return {}
    training = [row for row in _read(run) if row["stage"] == "train"]
    last = {"steps": training[-1]["step"], **training[-1]} if training else {}
    found = {name: float(value) for name, value in {**last, **test}.items() if name != "stage"}
    if "cpu_seconds" in last:
        found["cpu_seconds_per_step"] = float(last["cpu_seconds"]) / float(last["steps"])
    memory = [float(row["memory_gb"]) for row in training if row.get("memory_gb")]
    return found | ({"memory_gb": max(memory)} if memory else {})


def results(folder: Path, comparison: Comparison, seeds: Sequence[int]) -> list[list[str]]:
    """The table's cells: each row's label, then the mean of each column over the runs there are, and their standard deviation."""
    lines = []
    for label in comparison.rows:
        runs = [each for seed in seeds if (each := figures(folder / f"{_slug(label)}-{seed}"))]
        lines.append([label, *(_cell([run[key] for run in runs if key in run]) for key in comparison.columns.values())])
    return lines


def _cell(values: Sequence[float]) -> str:
    if not values:
        return ""
    mean = f"{statistics.fmean(values):.4g}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.2g}"


def _write(folder: Path, comparison: Comparison, title: str, options: Options, lines: list[list[str]]) -> None:
    """table.yaml and curves.png, where any run has ended."""
    environments = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob(f"*/{ENVIRONMENT}"))]
    if not environments:
        return
    machine = {f"{each['machine']['processor']}, {each.get('threads')} threads" for each in environments}
    said = {
        "title": title, "machine": "; ".join(sorted(machine)), "date": time.strftime("%Y-%m-%d"),
        "command": shlex.join(["train.py", "-m", *options.arguments]), "text": comparison.text,
        "columns": ["", *comparison.columns], "rows": lines,
    }  # fmt: skip
    write_text(folder / TABLE, yaml.safe_dump(said, sort_keys=False, allow_unicode=True, width=132))
    runs = {label: [_read(run) for run in _runs(folder, label)] for label in comparison.rows}
    save_curves(runs, comparison.columns.values(), folder / CURVES)
    print(f"  written   {folder / TABLE}, {CURVES}\n")


def _aligned(lines: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def _runs(folder: Path, label: str) -> list[Path]:
    """The folders of a row's runs, one for each seed."""
    return [run for run in sorted(folder.glob(f"{_slug(label)}-*")) if run.name[len(_slug(label)) + 1 :].isdecimal()]


def _slug(label: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")
