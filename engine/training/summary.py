"""The last lines of a run: the result, where the weights are, what to type next."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from ...core.errors import UserError
from ...core.scans import Grid, Scan
from ...core.scans import get as get_scan
from ..checkpoints import folder as files
from ..command_line.compose import compose
from ..command_line.config import Config
from ..command_line.options import Options
from ..conventions import predict_files
from ..evaluate import table
from .run import Result
from .run_folder import CHECKPOINTS, read_arguments
from .stop import Stopped

OTHERS = ("cross", "bidirectional", "raster")


def after_training(result: Result, config: Config, options: Options) -> str:
    """The result of a finished run and commands to paste."""
    folder, checkpoints = result.folder, result.folder / CHECKPOINTS
    best = checkpoints / ("best" if (checkpoints / "best").is_dir() else "last")
    lines = [
        "",
        "  result, best weights on the test data",
        table(result.metrics),
        "",
        f"  weights    {best / files.WEIGHTS}",
    ]
    pictures = ", ".join(sorted(each.stem.replace("_", " ") for each in folder.glob("*.png")))
    lines += [f"  pictures   {folder}/ ({pictures})"] if pictures else []
    longer = [f"resume={folder}", f"trainer.epochs={2 * config.trainer.epochs}"]
    longer += [] if config.trainer.steps is None else [f"trainer.steps={2 * config.trainer.steps}"]
    kept = [each for each in read_arguments(folder) if not each.lstrip("+").startswith(("scan=", "scan.", "run_dir="))]
    task = str(config.task.get("name"))
    example, scan = (
        predict_example(config.domain, options, task),
        another_scan(config, result.task.model, kept, options),
    )
    commands = {
        "go on with it": ["train.py", f"resume={folder}"] if result.ended else None,
        "test again": ["eval.py", f"ckpt={folder}"],
        "predict": ["predict.py", f"ckpt={folder}", *example] if example else None,
        "train longer": ["train.py", *longer],
        "another scan": ["train.py", *kept, f"scan={scan}"] if scan else None,
    }
    lines += ["", *(f"  {what:<13}   {options.command(*words)}" for what, words in commands.items() if words)]
    return "\n".join(lines) + "\n"


def predict_example(domain: str, options: Options, task: str | None = None) -> list[str]:
    """An example of what to type, from the card of the task where it has one, else of the domain's predict.yaml; empty: none."""
    groups = options.groups()
    files = [file for file in predict_files(groups) if file.domain == domain]
    known = task is not None and task in groups.files(domain)["task"]
    own = groups.read("task", task, domain).get("card") or {} if known else {}
    return shlex.split({**files[0].card, **own}.get("example") or "") if files else []


def another_scan(config: Config, model: Any, arguments: Sequence[str], options: Options) -> str | None:
    """A scan that the same command can be typed with: the model's mixers can walk it on their grid; None where there is none."""
    walked = next((module.scan for module in model.modules() if isinstance(getattr(module, "scan", None), Scan)), None)
    tokens = getattr(model, "tokens", None)
    grids = getattr(model, "grids", None) or ([Grid((tokens,))] if isinstance(tokens, int) else [])
    if config.scan is None or walked is None or not grids:
        return None
    for name in OTHERS:
        try:
            if name != config.scan["name"]:
                compose([*arguments, f"scan={name}"], options.groups(), options.allow)
                for grid in grids:
                    get_scan(name).layer(0).order(grid)
                return name
        except UserError:
            continue
    return None


def after_stop(stopped: Stopped, options: Options, arguments: Sequence[str]) -> str:
    """What happened and how to go on; arguments: what started this part of the run, for one that wrote no checkpoint."""
    if stopped.saved:
        arguments = [f"resume={stopped.folder}"]
    what = "go on with it" if stopped.folder is not None else "start it again"
    return f"\n{stopped}\n  {what}   {options.command('train.py', *arguments)}\n"
