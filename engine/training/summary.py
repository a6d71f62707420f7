"""The last lines of a run: the result, where the weights are, what to type next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...core.errors import UserError
from ...core.scans import Grid, Scan
from ...core.scans import get as get_scan
from ..checkpoints import folder as files
from ..command_line.compose import compose
from ..command_line.config import Config
from ..command_line.options import Options
from ..evaluate import table
from .run import Result, best_checkpoint
from .run_folder import read_typed
from .stop import Stopped

OTHERS = ("cross", "bidirectional", "raster")


def after_training(result: Result, config: Config, options: Options) -> str:
    """The result of a finished run and commands to paste."""
    link = result.folder / "checkpoints" / best_link(result)
    lines = ["", "  result, best weights on the test data", table(result.metrics), ""]
    lines.append(f"  weights    {link / files.WEIGHTS}")
    if config.trainer.pictures:
        lines.append(f"  pictures   {result.folder}/ (progress, first batch, worst predictions, scan)")
    longer = [f"resume={result.folder}", f"trainer.epochs={2 * config.trainer.epochs}"]
    if config.trainer.steps is not None:
        longer.append(f"trainer.steps={2 * config.trainer.steps}")
    lines.append("")
    if result.ended:
        lines.append("  go on with it   " + options.command("train.py", f"resume={result.folder}"))
    lines += ["  test again      " + options.command("eval.py", f"ckpt={result.folder}")]
    if config.task["_target_"].endswith(".LanguageModelling"):
        lines.append("  write text      " + options.command("predict.py", f"ckpt={result.folder}", "prompt=The "))
    lines.append("  train longer    " + options.command("train.py", *longer))
    typed = [
        each for each in read_typed(result.folder) if not each.lstrip("+").startswith(("scan=", "scan.", "run_dir="))
    ]
    other = another_scan(config, result.task.model, typed, options)
    if other is not None:
        lines.append("  another scan    " + options.command("train.py", *typed, f"scan={other}"))
    return "\n".join(lines) + "\n"


def another_scan(config: Config, model: Any, typed: Sequence[str], options: Options) -> str | None:
    """A scan that the same command can be typed with: the model's mixers can walk it on their grid; None where there is none."""
    walked = next((module.scan for module in model.modules() if isinstance(getattr(module, "scan", None), Scan)), None)
    if config.scan is None or walked is None:
        return None
    grid = getattr(model, "grid", None) or Grid((model.tokens,))
    for name in OTHERS:
        try:
            if name != config.scan["name"]:
                compose([*typed, f"scan={name}"], options.groups(), options.allow)
                get_scan(name).layer(0).order(grid)
                return name
        except UserError:
            continue
    return None


def best_link(result: Result) -> str:
    """ "best", or "last" where no validation chose one."""
    best = best_checkpoint(result.folder)
    links = (name for name in ("best", "last") if (result.folder / "checkpoints" / name).resolve() == best)
    return next(links, best.name)


def after_stop(stopped: Stopped, options: Options, typed: Sequence[str]) -> str:
    """What happened and how to go on; typed: what started this part of the run, for one that wrote no checkpoint."""
    if stopped.saved:
        typed = [f"resume={stopped.folder}"]
    what = "go on with it" if stopped.folder is not None else "start it again"
    return f"\n{stopped}\n  {what}   {options.command('train.py', *typed)}\n"
