"""What watches a training run: progress, metrics.csv, pictures, weight average, finite guard, seeds of every step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback

from ..training.run_folder import METRICS, PROGRESS
from .ema import WeightAverage, published_weights
from .finite import FiniteGuard, NonFinite
from .meter import Meter
from .metrics_csv import MetricsCSV
from .pictures import Pictures
from .progress import Progress
from .progress_picture import ProgressPicture
from .step_seeds import StepSeeds

__all__ = [
    "FiniteGuard",
    "Meter",
    "MetricsCSV",
    "NonFinite",
    "Pictures",
    "Progress",
    "ProgressPicture",
    "StepSeeds",
    "WeightAverage",
    "default_callbacks",
    "published_weights",
]


def default_callbacks(config: Any, run_folder: Path) -> list[Callback]:
    """The callbacks of every training run, in the order that they need.

    Checkpoint callbacks go after these (Lightning sees to that for subclasses of its `Checkpoint`), so that what they
    save is settled.

    Args:
        config: with `seed` and `trainer` (`ema`, `log_every`, `pictures`, `progress`), by attribute.
        run_folder: must exist.
    """
    trainer, run_folder = config.trainer, Path(run_folder)
    meter = Meter()
    table = MetricsCSV(run_folder / METRICS, meter, every=trainer.log_every)
    callbacks: list[Callback] = [meter, StepSeeds(config.seed), FiniteGuard()]
    if trainer.ema is not None:
        callbacks.append(WeightAverage(trainer.ema))
    if trainer.pictures:
        callbacks.append(Pictures(run_folder, meter))
    callbacks += [table, Progress(meter, getattr(trainer, "progress", "auto"))]
    if trainer.pictures:
        callbacks.append(ProgressPicture(run_folder / PROGRESS, table.table, meter))
    return callbacks
