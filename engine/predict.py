"""predict.py: a trained model, of a run or published, is given to its domain's predict function with what was typed."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import UserError
from .command_line.change_stored import change_stored
from .command_line.compose import check, compose_group
from .command_line.compose_part import compose_part
from .command_line.config import Config, TrainerSettings
from .command_line.convert import from_mapping
from .command_line.groups import Groups
from .conventions import PredictFile, predict_files

if TYPE_CHECKING:
    from ..domains.trained import Answer, Trained

# What of a run may be said anew: where its data are now, and what computes.
MACHINE = ("trainer.threads", "trainer.accelerator")
CHANGED = ("data.root", *MACHINE)


def predict_run(
    checkpoints: Sequence[tuple[Path, Mapping[str, Any]]],
    typed: Sequence[str],
    groups: Groups,
    allow: Sequence[str] = (),
) -> Answer:
    """Asks the model of a run, or of several together.

    Args:
        checkpoints: checkpoint folders, and the configuration that each was made with.
        typed: key=value arguments: the domain's options, and the keys of `CHANGED`.
        groups: the config groups.
        allow: further packages that a `_target_` may come from.

    Raises:
        UserError: an option that there is not, a value that does not fit, weights that do not fit.
    """
    changes, asked = _sorted(typed)
    why = "the model and its data are given by the weights"
    configs = [check(change_stored(stored, changes, groups, CHANGED, why, allow), allow) for _, stored in checkpoints]
    domains = list(dict.fromkeys(config.domain for config in configs))
    [file] = predict_files(groups, domains[0])
    if len(configs) > 1 and (len(domains) > 1 or not file.card.get("several")):
        raise UserError(
            "these runs cannot answer together", given=f"{len(configs)} runs of domain={', '.join(domains)}",
            allowed="one run, or several of a domain that takes the mean of their answers", do="name one after ckpt=",
        )  # fmt: skip
    options = _options(file, asked, groups, allow)
    run, *others = [_trained(config, path, allow) for config, (path, _) in zip(configs, checkpoints, strict=True)]
    return _call(file, replace(run, others=tuple(others)), options, allow)


def predict_published(
    where: str, file: PredictFile, module: str, typed: Sequence[str], groups: Groups, allow: Sequence[str] = ()
) -> Answer:
    """Asks a published model; `file` and `module` as conventions.find_published gives them, the rest as of predict_run.

    Options that are parameters of the module's `load` are given to it.
    """
    from .training.hardware import choose_hardware
    from .training.targets import resolve

    changes, asked = _sorted(typed)
    options = _options(file, asked, groups, allow)
    usual = {"domain": file.domain, "trainer": compose_group("trainer", "default", groups, file.domain)}
    values = change_stored(usual, changes, groups, MACHINE, "a published model's data and training are not known here")
    device = choose_hardware(from_mapping(TrainerSettings, values["trainer"], "trainer.")).device
    load = resolve(f"{module}.load", allow)
    of_loading = {name: options[name] for name in inspect.signature(load).parameters if name in options}
    return _call(file, load(where, device, **of_loading), options, allow)


def show(answer: Answer) -> int:
    """Prints an answer; the exit code: 1 where a part of what was asked could not be answered."""
    if answer.lines:
        print("\n" + "\n".join(answer.lines))
    for path in answer.files:
        print(f"  written  {path}")
    if answer.lines or answer.files:
        print()
    for each in answer.problems:
        print(each, file=sys.stderr)
    return 1 if answer.problems else 0


def _sorted(typed: Sequence[str]) -> tuple[list[str], list[str]]:
    """What is said of the run, and what is asked."""
    changes = [each for each in typed if each.startswith(("data.", "trainer."))]
    return changes, [each for each in typed if each not in changes]


def _options(file: PredictFile, asked: Sequence[str], groups: Groups, allow: Sequence[str]) -> dict[str, Any]:
    values = compose_part("predict", file.domain, asked, groups, allow)
    return {key: value for key, value in values.items() if key != "_target_"}


def _trained(config: Config, checkpoint: Path, allow: Sequence[str]) -> Trained:
    from ..data.module import DataModule
    from ..domains.trained import Trained
    from .training.assembly import build_trained
    from .training.hardware import choose_hardware
    from .training.run_folder import run_of
    from .training.targets import build

    hardware, run = choose_hardware(config.trainer), run_of(checkpoint)
    parts = build_trained(config, checkpoint, allow, with_data=False)
    task, data = parts.task.to(hardware.device).eval(), parts.data
    if data is None:
        data = build(config.data, allow, "data")
        if isinstance(data, DataModule):
            data.restore(run / "data" if (run / "data").is_dir() else run)
    return Trained(task.model, task, data, parts.describe, hardware.device, run)


def _call(file: PredictFile, run: Trained, options: Mapping[str, Any], allow: Sequence[str]) -> Answer:
    from .training.targets import resolve

    return resolve(file.target, allow)(run, **options)
