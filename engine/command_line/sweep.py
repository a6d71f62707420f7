"""-m: one run for each combination of the values typed with commas, one after the other, and a table at the end.

By hand, because Hydra's own multirun starts the first run before it has composed the second, which may hold the mistake, ends with
the first that breaks down, moves to a folder of its own for each, and knows nothing of going on after a signal.
"""

from __future__ import annotations

import shlex
import statistics
import sys
from collections.abc import Sequence
from itertools import product

from ...core.errors import UserError
from ..conventions import predict_files
from ..training.stop import Failed, Stopped
from .compose import compose, parse
from .config import Config
from .options import Options

REPEATED = ("seed", "data.fold")  # keys whose values are repetitions of one experiment
# What was typed, the metrics or None where it broke down, the folder or why.
Row = tuple[list[str], dict[str, float] | None, str]


def combinations(arguments: tuple[str, ...]) -> list[list[str]]:
    """The argument lists of all runs: `a=1,2 b=3` becomes [["a=1", "b=3"], ["a=2", "b=3"]]."""
    choices = []
    for override in parse(arguments):
        if override.is_sweep_override():
            choices.append([f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()])
        else:
            choices.append([override.input_line])
    return [list(each) for each in product(*choices)]


def sweep(options: Options) -> int:
    """Trains every combination and prints a table; all are checked before the first starts.

    Returns:
        0, or 1 where a run broke down; the others are made all the same. 143 or 130 where a signal ended it.
    """
    runs = combinations(options.arguments)
    if len(runs) > 1:
        runs = [_numbered(typed, number) for number, typed in enumerate(runs, start=1)]
    configs = [compose(each, options.groups(), options.allow) for each in runs]
    if options.show_config:
        from .main import show

        return max(show(config, options) for config in configs)
    from .startup import import_torchmetrics

    import_torchmetrics()

    rows: list[Row] = []
    left = [*zip(runs, configs, strict=True)]
    try:
        while left:
            typed, config = left[0]
            print(f"\nrun {len(rows) + 1} of {len(runs)}: {' '.join(typed)}")
            rows.append(_run(typed, config, options.allow))
            del left[0]
    except Stopped as stopped:
        print(f"\n{stopped}", file=sys.stderr)
        if rows:
            print(table(rows))
        print(
            "\n".join(["", "  left to do", *_left(stopped, [typed for typed, _ in left], options), ""]), file=sys.stderr
        )
        return stopped.exit_code
    print(table(rows))
    print(together(rows, configs[0], options), end="")
    return int(any(metrics is None for _, metrics, _ in rows))


def repeated(runs: Sequence[Sequence[str]]) -> bool:
    """Whether the runs are one with other seeds or other parts of the data."""
    differ = {word.partition("=")[0] for typed in runs for word in typed if any(word not in other for other in runs)}
    return bool(differ - {"run_dir"}) and differ <= {"run_dir", *REPEATED}


def together(rows: list[Row], config: Config, options: Options) -> str:
    """What to type so that repetitions answer together, where the domain's predict.yaml says that runs can; else ""."""
    folders = [where for _, metrics, where in rows if metrics]
    files = [
        file for file in predict_files(options.groups()) if file.domain == config.domain and file.card.get("several")
    ]
    if not files or len(folders) < 2 or not repeated([typed for typed, *_ in rows]):
        return ""
    words = ["ckpt=" + ",".join(folders), *shlex.split(str(files[0].card.get("example") or ""))]
    return f"  together   {options.command('predict.py', *words)}\n"


def _numbered(typed: list[str], number: int) -> list[str]:
    """The arguments of one run of several, each with a folder of its own below `run_dir`."""
    return [f"{each}/{number}" if each.startswith("run_dir=") and each != "run_dir=null" else each for each in typed]


def _run(typed: list[str], config: Config, allow: Sequence[str]) -> Row:
    from ..training.run import train

    try:
        result = train(config, arguments=typed, allow=allow)
    except (UserError, Failed) as error:
        print(f"\n{error}\n", file=sys.stderr)
        return typed, None, str(error).splitlines()[0]
    return typed, result.metrics, str(result.folder)


def _left(stopped: Stopped, waiting: list[list[str]], options: Options) -> list[str]:
    """A command for each run that has not ended: the one that was stopped goes on, the others start."""
    if stopped.folder is not None:
        waiting = [[f"resume={stopped.folder}"], *waiting[1:]]
    return [f"    {options.command('train.py', *typed)}" for typed in waiting]


def table(rows: list[Row]) -> str:
    """A line for each run: its metrics, what was typed, its folder or why it failed; of repetitions their mean and deviation."""
    names = sorted({name for _, metrics, _ in rows for name in metrics or ()})
    lines = ["", "  " + "  ".join([*(f"{name:>14}" for name in names), "run"])]
    for typed, metrics, where in rows:
        figures = [f"{(metrics or {}).get(name, float('nan')):14.4f}" for name in names]
        lines.append("  " + "  ".join([*figures, f"{' '.join(typed)}  ({where})"]))
    found = [metrics for _, metrics, _ in rows if metrics]
    if repeated([typed for typed, _, _ in rows]) and len(found) > 1:
        columns = [[metrics.get(name, float("nan")) for metrics in found] for name in names]
        for what, of in (("mean", statistics.fmean), ("standard deviation", statistics.stdev)):
            lines.append("  " + "  ".join([*(f"{of(values):14.4f}" for values in columns), f"{what} of {len(found)}"]))
    return "\n".join(lines) + "\n"
