"""metrics.csv: a row for every few training steps, every validation and every test, whatever becomes of the process.

By hand, because Lightning's CSVLogger deletes the file of a run that goes on, and keeps rows back that a kill then loses.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from .meter import Meter, memory_bytes, planned_steps
from .table import Table


class MetricsCSV(Callback):
    """Writes metrics.csv: training scalars as means over the steps since the last row, validation and test results.

    Columns: step (optimizer steps done), epoch, stage ("train", "val" or "test"), seconds (of training, over all
    resumed parts), cpu_seconds (processor time of the same, over all threads), the metrics by their names,
    learning_rate, gradient_norm (before clipping), seconds_per_step, samples_per_second, tokens_per_second, memory_gb.

    Args:
        path: the file.
        meter: what measures the run.
        every: optimizer steps between two training rows.
    """

    def __init__(self, path: Path, meter: Meter, every: int = 10):
        self.table = Table(path)
        self.meter, self.every = meter, every
        self._last_step = 0

    def on_train_start(self, trainer: Trainer, task: LightningModule) -> None:
        self._last_step = trainer.global_step
        if trainer.is_global_zero:
            self.table.keep_until(trainer.global_step)

    def on_train_batch_end(self, trainer: Trainer, task: LightningModule, *_: Any) -> None:
        step = trainer.global_step
        # The last steps' row before the last validation: a run that was stopped in that has no training left to write it.
        if step != self._last_step and (step % self.every == 0 or step == planned_steps(trainer)):
            self.on_train_end(trainer, task)

    def on_train_end(self, trainer: Trainer, task: LightningModule) -> None:
        means = self.meter.take_means()
        self._last_step = trainer.global_step
        if means:
            groups = trainer.optimizers[0].param_groups if trainer.optimizers else []
            means["learning_rate"] = max((group["lr"] for group in groups), default=None)
            means["gradient_norm"] = task.gradient_norm
            means |= {**self.meter.rates()._asdict(), "memory_gb": memory_bytes(task.device) / 1e9}
            self._write(trainer, "train", means)

    def on_validation_end(self, trainer: Trainer, task: LightningModule) -> None:
        if not trainer.sanity_checking:
            self._write_evaluation(trainer, "val")

    def on_test_end(self, trainer: Trainer, task: LightningModule) -> None:
        self._write_evaluation(trainer, "test")

    def _write_evaluation(self, trainer: Trainer, stage: str) -> None:
        metrics = trainer.callback_metrics.items()
        self._write(trainer, stage, {name: value for name, value in metrics if name.startswith(f"{stage}/")})

    def _write(self, trainer: Trainer, stage: str, figures: dict[str, Any]) -> None:
        if not trainer.is_global_zero:
            return
        step = trainer.global_step
        if stage == "test" and step == 0 and self.table.rows:
            step = int(self.table.rows[-1]["step"])
        row = {"step": step, "epoch": self.meter.epoch, "stage": stage}
        row["seconds"] = round(self.meter.seconds_before + self.meter.elapsed(), 3)
        row["cpu_seconds"] = round(self.meter.processor_seconds(), 3)
        self.table.add({**row, **figures})
