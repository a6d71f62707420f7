"""From a Config to the objects of a run: data, scan, model, task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...core.errors import UserError
from ...data.module import DataModule, Description
from ..checkpoints.folder import read_weights
from ..checkpoints.stored_config import stored_description
from ..command_line.config import Config
from ..command_line.signature import LABELS, PACKAGE
from . import seeds
from .memory import check_memory
from .run_folder import run_of
from .targets import build, resolve

KEPT = "data"  # the folder, in a run's own, of what its data module keeps


@dataclass(frozen=True)
class Parts:
    """What a run is made of.

    Args:
        data: not read yet where the description is a checkpoint's.
        description: what the data module says of its data.
        describe: what models and tasks are built from: the data's name, the description's `for_model` and what is kept.
    """

    data: DataModule
    description: Description
    describe: dict[str, Any]
    scan: Any
    model: Any
    task: Any


def build_parts(config: Config, allow: Sequence[str] = (), training: bool = True, kept_by: Path | None = None) -> Parts:
    """Builds everything a run needs, after seeding, so that one seed gives one set of first weights.

    Args:
        kept_by: the run folder whose data's scaler, index and the like are used, not made anew.

    Raises:
        UserError: from the data (a file missing or damaged), the scan or the model (sizes that do not fit), or more memory
            would be needed than there is.
    """
    data = _build_data(config, allow, kept_by)
    description = data.describe()
    if training and data.samples("train") == 0:
        raise UserError(
            "there is nothing to train on", given=description.line, allowed="data with a part for training",
            do="eval.py, which tests a model on them",
        )  # fmt: skip
    return _build(config, data, description, allow, training)


def build_trained(config: Config, checkpoint: Path, allow: Sequence[str] = (), with_data: bool = True) -> Parts:
    """As build_parts, with the weights of a checkpoint folder and what its run has kept of its data.

    Args:
        with_data: read the data; False: not where the checkpoint says what the model has to know of them.

    Raises:
        UserError: as build_parts; the weights do not fit the data or the model.
    """
    data = _build_data(config, allow, run_of(checkpoint))
    description = None if with_data else stored_description(checkpoint)
    parts = _build(config, data, description or data.describe(), allow, False)
    weights = read_weights(checkpoint)
    check_fit(weights, parts.model)
    parts.model.load_state_dict(weights)
    return parts


def _build_data(config: Config, allow: Sequence[str], kept_by: Path | None) -> DataModule:
    data = build(config.data, allow, "data")
    if kept_by is not None:
        # runs of earlier versions keep things in their own folder
        data.restore(kept_by / KEPT if (kept_by / KEPT).is_dir() else kept_by)
    return data


def _build(config: Config, data: DataModule, description: Description, allow: Sequence[str], training: bool) -> Parts:
    scan, describe = build_scan(config), {"name": description.name, **description.for_model, **data.kept()}
    asked = getattr(resolve(str(config.task["_target_"]), allow), "asks", None)
    asked = {**describe, **({} if asked is None else asked(describe, config.task))}
    if str(config.model["_target_"]).startswith(f"{PACKAGE}."):
        # Its sizes cost nothing here; of a model from elsewhere it is not known whether it can be made of sizes alone.
        with torch.device("meta"):
            sizes = build(config.model, allow, "model", describe=asked, scan=scan)
        check_memory(config, sizes, description, data.loading.batch_size if training else None)
    seeds.seed_everything(config.seed)
    model = build(config.model, allow, "model", describe=asked, scan=scan)
    task = build(config.task, allow, "task", model=model, describe=describe)
    return Parts(data, description, describe, scan, model, task)


def build_scan(config: Config) -> Any:
    """The scan of a configuration; None where it names none.

    Raises:
        UserError: an unknown name or parameter.
    """
    if config.scan is None:
        return None
    from ...core import scans

    parameters = {key: value for key, value in config.scan.items() if key not in LABELS}
    return scans.get(config.scan["name"], **parameters)


def check_fit(
    weights: dict[str, Any], model: Any, do: str = "use data of the same kind and sizes as in training"
) -> None:
    """Raises UserError, with the advice `do`, where weights and model differ in a name or a shape."""
    expected = model.state_dict()
    differ = [
        f"{name}: {tuple(weights[name].shape)} in the file, {tuple(value.shape)} in the model"
        for name, value in expected.items()
        if name in weights and weights[name].shape != value.shape
    ]
    differ += [f"{name}: only in the model" for name in expected if name not in weights]
    differ += [f"{name}: only in the file" for name in weights if name not in expected]
    if differ:
        raise UserError(
            "the weights do not fit this model or data",
            given="; ".join(differ[:4]) + (f" and {len(differ) - 4} more" if len(differ) > 4 else ""),
            do=do,
        )
