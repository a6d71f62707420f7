"""first_batch.png, worst_predictions.png, samples.txt: what goes in, what goes wrong, what is written, as the task shows it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from .figure_file import save_figure
from .meter import Meter


class Pictures(Callback):
    """Keeps the run's first training batch and draws it a little later, so that drawing does not delay the first step;
    draws the worst predictions after a test; adds what the model writes to samples.txt after each validation.

    Args:
        folder: where the pictures go.
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
        if self._batch is not None and self.clock() >= self._due:
            self._draw_first_batch(pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._draw_first_batch(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and not trainer.sanity_checking:
            with self.meter.paused():
                text = pl_module.sample()
            if text is not None:
                with open(self.folder / "samples.txt", "a", encoding="utf-8", errors="replace") as file:
                    file.write(f"step {trainer.global_step:,}\n{text}\n\n")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._draw_first_batch(pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        # A full disk, say, must not hide what went wrong.
        with suppress(OSError):
            self._draw_first_batch(pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            self._save(pl_module.worst_predictions(), "worst_predictions.png")

    def _draw_first_batch(self, task: LightningModule) -> None:
        if self._batch is None:
            return
        batch, self._batch = self._batch, None
        with self.meter.paused():
            self._save(task.first_batch(batch), "first_batch.png")

    def _save(self, figure: Any, name: str) -> None:
        if figure is not None:
            save_figure(figure, self.folder / name)
