"""-m: one run for each combination of the values typed with commas, one after the other, and a table at the end."""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path

from ..core.errors import UserError
from .compose import compose, parse
from .options import Options
from .stop import Stopped


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
        0, or 1 where a run broke down; the others are made all the same.
    """
    from .summary import after_stop

    runs = combinations(options.arguments)
    configs = [compose(each, options.groups(), options.allow) for each in runs]
    from .startup import import_torchmetrics

    import_torchmetrics()
    from .callbacks import NonFinite
    from .train import train

    rows = []
    for number, (typed, config) in enumerate(zip(runs, configs, strict=True), start=1):
        print(f"\nrun {number} of {len(runs)}: {' '.join(typed)}")
        if config.run_dir is not None and len(runs) > 1:
            config = compose([*typed, f"run_dir={Path(config.run_dir, str(number))}"], options.groups(), options.allow)
        try:
            result = train(config, typed=typed, allow=options.allow)
        except Stopped as stopped:
            print(after_stop(stopped, options), file=sys.stderr)
            return stopped.exit_code
        except (UserError, NonFinite) as error:
            print(f"\n{error}\n", file=sys.stderr)
            rows.append((typed, None, str(error).splitlines()[0]))
            continue
        rows.append((typed, result.metrics, str(result.folder)))
    print(table(rows))
    return int(any(metrics is None for _, metrics, _ in rows))


def table(rows: list[tuple[list[str], dict[str, float] | None, str]]) -> str:
    """A line for each run: its metrics, what was typed, its folder or why it failed."""
    names = sorted({name for _, metrics, _ in rows for name in metrics or ()})
    lines = ["", "  " + "  ".join([*(f"{name:>14}" for name in names), "run"])]
    for typed, metrics, where in rows:
        figures = [f"{(metrics or {}).get(name, float('nan')):14.4f}" for name in names]
        lines.append("  " + "  ".join([*figures, f"{' '.join(typed)}  ({where})"]))
    return "\n".join(lines) + "\n"
