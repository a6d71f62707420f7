"""The typed shape of a run's configuration; the values and their explanations stand in configs/*.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from ...core.ranges import Count, Mass, Positive, Rate, Seed, Share, Size, Threads, Weight
from .convert import from_mapping

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class TrainerSettings:
    """configs/trainer: how long a run lasts, on which device, and what it checks and writes."""

    epochs: Size
    steps: Size | None
    time_limit: str | None
    accelerator: Literal["auto", "cpu", "cuda"]
    devices: Threads
    precision: Literal["auto", "32", "bf16", "bf16-autocast"]
    threads: Threads | None
    deterministic: bool
    gradient_clip: Positive | None
    accumulate: Size
    ema: Rate | None
    val_every: Size
    val_every_steps: Size | None
    log_every: Size
    progress: Literal["auto", "bar", "lines", "none"]
    checkpoint_every: Size | None
    limit_train: Size | None
    limit_val: Size | None
    limit_test: Size | None
    overfit: Count
    pictures: bool


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """configs/optimizer: the optimizer and its learning-rate schedule; unused fields stay None."""

    name: Literal["adamw", "sgd"]
    lr: Weight
    weight_decay: Weight
    betas: tuple[Rate, Rate] | None = None
    eps: Positive | None = None
    momentum: Rate | None = None
    nesterov: bool | None = None
    schedule: Literal["cosine", "polynomial", "constant"]
    warmup: Weight
    final_lr: Share
    layer_decay: Mass | None = None


@dataclass(frozen=True)
class LoggerSettings:
    """configs/logger: metrics.csv is always written; "tensorboard" writes its files too."""

    name: Literal["csv", "tensorboard"]


@dataclass(frozen=True)
class Config:
    """A whole run. data, model, scan and task are free mappings, checked against what their `_target_` accepts."""

    domain: str
    seed: Seed
    run_dir: str | None
    data: dict[str, Any]
    model: dict[str, Any]
    scan: dict[str, Any] | None
    task: dict[str, Any]
    trainer: TrainerSettings
    optimizer: OptimizerSettings
    logger: LoggerSettings
    init: str | None = None

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> Config:
        """A checked Config from plain values, as they stand in a run's config.yaml.

        Raises:
            UserError: an unknown or missing key, a value of the wrong type or outside its range.
        """
        return from_mapping(cls, values)

    def plain(self) -> dict[str, Any]:
        """The same values as plain dicts, lists and scalars, keys in a fixed order."""
        return _plain({each.name: getattr(self, each.name) for each in fields(self)})


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "__dataclass_fields__"):
        return _plain({key: item for key, item in asdict(value).items() if item is not None or _required(value, key)})
    return value


def _required(settings: Any, key: str) -> bool:
    from dataclasses import MISSING

    return settings.__dataclass_fields__[key].default is MISSING
