"""Testing a checkpoint: its own run's data, or other data with the same classes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from ..data.module import Description
from .checkpoints import folder as files
from .command_line.config import Config
from .training.assembly import build_trained
from .training.hardware import choose_hardware
from .training.plan import resolve_backend
from .training.run_folder import run_of, write_text
from .training.trainer import make_trainer, quiet

METRICS = "metrics.json"


def evaluate(
    config: Config, checkpoint: Path, *, allow: Sequence[str] = (), say: Callable[[str], None] = print
) -> dict[str, float]:
    """Tests the weights of a checkpoint folder and writes metrics.json into its run folder.

    Args:
        config: the configuration to build data, model and task from.
        checkpoint: a checkpoint folder.
        allow: further packages that a `_target_` may come from.
        say: where the table goes.

    Returns:
        the metrics by name; metrics.json maps the data set's name to them, to the checkpoint and to the sample count.

    Raises:
        UserError: the weights do not fit the data or the model.
    """
    hardware = choose_hardware(config.trainer)
    parts = build_trained(config, checkpoint, allow)
    backend, reason = resolve_backend(config, hardware)
    say(f"\n  weights    {checkpoint / files.WEIGHTS}")
    say(f"  data       {parts.description.line}")
    say(f"  tested     {tested_part(parts.description)}")
    say(f"  computing  on {hardware.device} in {hardware.precision}, backend {backend} ({reason})\n")
    with quiet():
        trainer = make_trainer(config, hardware, run_of(checkpoint))
        [found] = trainer.test(parts.task, datamodule=parts.data, verbose=False)
    metrics = {name: float(value) for name, value in found.items()}
    say(table(metrics))
    _remember(run_of(checkpoint) / METRICS, checkpoint, parts.description, metrics)
    return metrics


def tested_part(description: Description) -> str:
    """Which part of the data is tested, in a line."""
    counts = description.counts
    test, known = counts["test"], sum(counts.values())
    share = f" of {known:,}, {test / known:.0%}" if known > test else ""
    return f"{test:,}{share}: {description.tested}"


def table(metrics: dict[str, float]) -> str:
    """Metrics by name, one a line, figures aligned."""
    width = max((len(name) for name in metrics), default=0)
    in_order = sorted(
        metrics.items(), key=lambda each: [int(p) if p.isdecimal() else p for p in re.split(r"(\d+)", each[0])]
    )
    return "\n".join(f"  {name:<{width}}  {value:10.4f}" for name, value in in_order)


def _remember(path: Path, checkpoint: Path, description: Description, metrics: dict[str, float]) -> None:
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    found = {"checkpoint": checkpoint.name, "samples": description.counts["test"], "metrics": metrics}
    known[description.name] = found
    write_text(path, json.dumps(known, indent=1) + "\n")
