"""The pictures and texts that a task offers (first batch, worst predictions, samples …) as files of the run folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from ...core.pictures import save_figure
from .meter import Meter


class Pictures(Callback):
    """Keeps the run's first training batch and has it drawn a little later, so that drawing does not delay the first step;
    asks for what there is to see after each validation and after a test.

    Args:
        folder: where the files go.
        meter: what measures the run.
        after_seconds: how long training goes on before the first batch is drawn (a validation or the end come sooner).
        clock: seconds from any fixed moment.
    """

    def __init__(
        self, folder: Path, meter: Meter, after_seconds: float = 5.0, clock: Callable[[], float] = time.monotonic
    ):
        self.folder, self.meter = Path(folder), meter
        self.after_seconds, self.clock = after_seconds, clock
        self._batch: Any = None
        self._due = 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        # The place in training, not the step: under accumulation several batches belong to step 0.
        if trainer.is_global_zero and trainer.current_epoch == 0 and batch_idx == 0:
            self._batch = batch
            self._due = self.clock() + self.after_seconds

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.clock() >= self._due:
            self._draw_first_batch(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._draw_first_batch(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self._write(trainer, pl_module, "val")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._draw_first_batch(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        # A full disk, say, must not hide what went wrong.
        with suppress(OSError):
            self._draw_first_batch(trainer, pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer, pl_module, "test")

    def _draw_first_batch(self, trainer: Trainer, task: LightningModule) -> None:
        if self._batch is not None:
            batch, self._batch = self._batch, None
            self._write(trainer, task, "train", batch)

    def _write(self, trainer: Trainer, task: LightningModule, stage: str, batch: Any = None) -> None:
        if not trainer.is_global_zero:
            return
        with self.meter.paused():
            for name, found in task.pictures(stage, batch).items():
                if not isinstance(found, str):
                    save_figure(found, self.folder / f"{name}.png")
                    continue
                with open(self.folder / f"{name}.txt", "a", encoding="utf-8", errors="replace") as file:
                    file.write(f"step {trainer.global_step:,}\n{found}\n\n")
