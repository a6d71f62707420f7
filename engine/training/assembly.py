"""From a Config to the objects of a run: data, scan, model, task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ...core.errors import UserError
from ..checkpoints.folder import read_about, read_weights
from ..command_line.config import Config
from ..command_line.signature import LABELS, PACKAGE
from . import seeds
from .memory import check_memory
from .run_folder import run_of
from .targets import build

TOKENIZER = "tokenizer.json"


@dataclass(frozen=True)
class Parts:
    """What a run is made of. describe: what the data module says of its data. data: None where they were not read."""

    data: Any
    describe: dict[str, Any]
    scan: Any
    model: Any
    task: Any


def build_parts(config: Config, allow: Sequence[str] = (), training: bool = True) -> Parts:
    """Builds everything a run needs, after seeding, so that one seed gives one set of first weights.

    Raises:
        UserError: from the data (a file missing or damaged), the scan or the model (sizes that do not fit), or more memory
            would be needed than there is.
    """
    data = build(config.data, allow, "data")
    return _parts(config, data, dict(data.describe()), allow, training)


def build_trained(config: Config, checkpoint: Path, allow: Sequence[str] = (), with_data: bool = True) -> Parts:
    """As build_parts, with the weights of a checkpoint folder and the tokenizer that its run has kept.

    Args:
        with_data: read the data; False: where the checkpoint says what the model has to know of them, `data` is None.

    Raises:
        UserError: as build_parts; the weights do not fit the data or the model.
    """
    run = run_of(checkpoint)
    config = with_tokenizer(config, run)
    describe = None if with_data else _told(checkpoint, run)
    parts = build_parts(config, allow, False) if describe is None else _parts(config, None, describe, allow, False)
    weights = read_weights(checkpoint)
    check_fit(weights, parts.model)
    parts.model.load_state_dict(weights)
    return parts


def plain(describe: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a data module's description that JSON can hold: all but the tokenizer."""
    return {name: value for name, value in describe.items() if _is_plain(value)}


def _parts(config: Config, data: Any, describe: dict[str, Any], allow: Sequence[str], training: bool) -> Parts:
    scan = build_scan(config)
    if str(config.model["_target_"]).startswith(f"{PACKAGE}."):
        # Its sizes cost nothing here; of a model from elsewhere it is not known whether it can be made of sizes alone.
        with torch.device("meta"):
            sizes = build(config.model, allow, describe=describe, scan=scan)
        check_memory(config, sizes, describe, training)
    seeds.seed_everything(config.seed)
    model = build(config.model, allow, "model", describe=describe, scan=scan)
    task = build(config.task, allow, "task", model=model, describe=describe)
    return Parts(data, describe, scan, model, task)


def _told(checkpoint: Path, run: Path) -> dict[str, Any] | None:
    """The description that a checkpoint holds, with the tokenizer of its run; None where one of them is not there."""
    about = {name: value for name, value in read_about(checkpoint).items() if name not in ("model", "scan")}
    if not about or not (run / TOKENIZER).is_file():
        return None
    from ...data.nlp.tokenizer import load_tokenizer

    return {**about, "tokenizer": load_tokenizer(run / TOKENIZER)}


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(each) for key, each in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | int | float)


def with_tokenizer(config: Config, folder: Path) -> Config:
    """The configuration with the tokenizer that a run has kept in its folder, whatever data it is going to read."""
    path = folder / TOKENIZER
    if "tokenizer" not in config.data or not path.is_file():
        return config
    return replace(config, data={**config.data, "tokenizer": str(path)})


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
    weights: dict[str, Any], model: Any, do: str = "use data with the same classes and image size as in training"
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
