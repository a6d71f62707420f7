"""Testing a checkpoint, on its own run's data or on other data with the same classes, and testing published weights."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..data.module import DataModule, Description
from .checkpoints import folder as files
from .command_line.change_stored import may_change, read_with
from .command_line.compose import compose
from .command_line.config import Config
from .command_line.groups import Groups
from .conventions import PredictFile
from .training.assembly import build_trained
from .training.hardware import choose_hardware
from .training.plan import resolve_backend
from .training.run_folder import run_of, write_text
from .training.targets import build, resolve
from .training.trainer import make_trainer, quiet

METRICS = "metrics.json"
PUBLISHED = "published"  # under runs/<domain>: where the metrics of weights that no run has made are kept
CHANGED = ("data", "trainer", "task")


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
    parts = build_trained(config, checkpoint, allow)
    metrics = _test(
        config, checkpoint / files.WEIGHTS, parts.task, parts.data, parts.description, run_of(checkpoint), say
    )
    _remember(run_of(checkpoint) / METRICS, checkpoint.name, parts.description, metrics)
    return metrics


def evaluate_published(
    where: str,
    file: PredictFile,
    module: str,
    typed: Sequence[str],
    groups: Groups,
    allow: Sequence[str] = (),
    say: Callable[[str], None] = print,
) -> dict[str, float]:
    """Tests published weights on data that are read as their authors read them, and writes
    runs/<domain>/published/<weights>/metrics.json.

    Args:
        where: the weights.
        file, module: as conventions.find_published gives them. The module's `reading(run)` says which settings of data the model
            that its `load` gives wants, and MUST_AGREE in which words what it is of and what data say may not differ.
        typed: `data=...` and keys of data, trainer and task; parameters of the module's `load`.
        groups: the config groups.
        allow: further packages that a `_target_` may come from.
        say: where the table goes.

    Raises:
        UserError: something else was typed, the domain tests no published weights, or they are not for such data.
    """
    load = resolve(f"{module}.load", allow)
    known = inspect.getmodule(load)
    reading = getattr(known, "reading", None)
    if reading is None:
        raise UserError(
            "published weights of this domain are not tested", given=f"ckpt={where}", do=f"predict.py ckpt={where}"
        )
    loads_with = inspect.signature(load).parameters.keys() - {"where", "device"}
    of_loading, rest = {}, []
    for each in typed:
        key, _, value = each.partition("=")
        if key in loads_with:
            of_loading[key] = value
        elif may_change(key, CHANGED):
            rest.append(each)
        else:
            raise UserError("the model is given by the weights", given=each, allowed=CHANGED, do=f"leave {key}= out")
    config = compose([f"domain={file.domain}", *rest], groups, allow)
    run = load(where, choose_hardware(config.trainer).device, **of_loading)
    as_typed = {each.partition("=")[0].removeprefix("data.") for each in rest}
    wanted = {name: value for name, value in reading(run).items() if name not in as_typed}
    config = replace(config, data=read_with(config.data, wanted))
    data = build(config.data, allow, "data")
    description = data.describe()
    describe = {"name": description.name, **description.for_model, **data.kept()}
    _check_agreement(where, run.describe, describe, getattr(known, "MUST_AGREE", ()))
    task = build(config.task, allow, "task", model=run.model, describe=describe)
    folder = Path("runs") / file.domain / PUBLISHED / re.sub(r"[^\w.-]+", "-", Path(where).name)
    metrics = _test(config, where, task, data, description, folder, say)
    folder.mkdir(parents=True, exist_ok=True)
    _remember(folder / METRICS, where, description, metrics)
    return metrics


def _check_agreement(where: str, weights: Mapping[str, Any], data: Mapping[str, Any], names: Sequence[str]) -> None:
    for name in names:
        if name in weights and name in data and weights[name] != data[name]:
            raise UserError(
                f"these weights are not for such data: {name}", given=f"{weights[name]} in {where}, {data[name]} in the data",
                allowed=f"data with {name} {weights[name]}", do="data=<name> data.root=FOLDER",
            )  # fmt: skip


def _test(
    config: Config,
    weights: str | Path,
    task: Any,
    data: DataModule,
    description: Description,
    folder: Path,
    say: Callable[[str], None],
) -> dict[str, float]:
    """Tests a task on its data and says how and what was found."""
    hardware = choose_hardware(config.trainer)
    backend, reason = resolve_backend(config, hardware)
    say(f"\n  weights    {weights}")
    say(f"  data       {description.line}")
    say(f"  tested     {tested_part(description)}")
    say(f"  computing  on {hardware.device} in {hardware.precision}, backend {backend} ({reason})\n")
    with quiet():
        trainer = make_trainer(config, hardware, folder)
        [found] = trainer.test(task, datamodule=data, verbose=False)
    metrics = {name: float(value) for name, value in found.items()}
    say(table(metrics))
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


def _remember(path: Path, weights: str, description: Description, metrics: dict[str, float]) -> None:
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    found = {"checkpoint": weights, "samples": description.counts["test"], "metrics": metrics}
    known[description.name] = found
    write_text(path, json.dumps(known, indent=1) + "\n")
