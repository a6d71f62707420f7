"""Testing a checkpoint: its own run's data, or other data with the same classes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .checkpoints import folder as files
from .command_line.config import Config
from .command_line.convert import as_typed
from .training.assembly import build_trained
from .training.hardware import choose_hardware
from .training.plan import describe_data, resolve_backend
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
    say(f"  data       {describe_data(parts.describe)}")
    say(f"  tested     {describe_part(config, parts.describe)}")
    say(f"  computing  on {hardware.device} in {hardware.precision}, backend {backend} ({reason})\n")
    with quiet():
        trainer = make_trainer(config, hardware, run_of(checkpoint))
        [found] = trainer.test(parts.task, datamodule=parts.data, verbose=False)
    metrics = {name: float(value) for name, value in found.items()}
    say(table(metrics))
    _remember(
        run_of(checkpoint) / METRICS, str(parts.describe.get("name", "data")), checkpoint, parts.describe, metrics
    )
    return metrics


def describe_part(config: Config, describe: Mapping[str, Any]) -> str:
    """Which part of the data is tested, in a line."""
    counts = [describe.get(split) for split in ("train", "val", "test")]
    if None in counts:
        return "the test part"
    share, test = counts[2] / max(sum(counts), 1), counts[2]
    named = f"{test:,} of {sum(counts):,}, {share:.0%}: "
    if config.data.get("test_files"):
        return f"{test:,}: all of data.test_files={as_typed(config.data['test_files'])}"
    if "test_files" in config.data:
        return f"{named}data.test_fraction={config.data['test_fraction']} of data.files; data.test_files=FILE tests all of a file"
    return f"{named}the test part" + (" (data.test_fraction)" if "test_fraction" in config.data else "")


def table(metrics: dict[str, float]) -> str:
    """Metrics by name, one a line, figures aligned."""
    width = max((len(name) for name in metrics), default=0)
    in_order = sorted(
        metrics.items(), key=lambda each: [int(p) if p.isdecimal() else p for p in re.split(r"(\d+)", each[0])]
    )
    return "\n".join(f"  {name:<{width}}  {value:10.4f}" for name, value in in_order)


def _remember(path: Path, name: str, checkpoint: Path, describe: dict, metrics: dict[str, float]) -> None:
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    known[name] = {"checkpoint": checkpoint.name, "samples": describe.get("test"), "metrics": metrics}
    write_text(path, json.dumps(known, indent=1) + "\n")
