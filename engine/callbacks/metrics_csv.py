"""metrics.csv: a row for every few training steps, every validation and every test, whatever becomes of the process."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from .meter import Meter, memory_bytes

FIXED = ("step", "epoch", "stage", "seconds")
Row = dict[str, str]


class Table:
    """A CSV file that grows by rows and, where a row brings a new column, by columns.

    Every row is handed to the operating system at once, so a killed process loses none; a last line that was cut short
    is dropped when the file is read again. A row with the step and stage of an earlier one replaces it.

    Args:
        path: the file; read where it exists.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self.columns: list[str] = list(FIXED)
        self.rows: list[Row] = []
        self._complete = True
        if self.path.exists():
            self._read()

    def add(self, row: Mapping[str, Any]) -> None:
        """Writes a row: step, epoch, stage, seconds, and any numbers; None is left empty."""
        cells = {name: write_cell(value) for name, value in row.items() if value is not None}
        new = [name for name in cells if name not in self.columns]
        key = (cells["step"], cells["stage"])
        same = [index for index, old in enumerate(self.rows) if (old["step"], old["stage"]) == key]
        self.columns += new
        if same:
            self.rows[same[0]] = cells
        else:
            self.rows.append(cells)
        if new or same or not self._complete or not self.path.exists():
            self._rewrite()
            return
        with open(self.path, "a", newline="") as file:
            csv.DictWriter(file, self.columns).writerow(cells)

    def keep_until(self, step: int) -> None:
        """Drops every row of a later step, and test results: a resumed run will write them again."""
        self.rows = [row for row in self.rows if int(row["step"]) <= step and row["stage"] != "test"]
        if self.path.exists():
            self._rewrite()

    def clear(self) -> None:
        """Forgets all rows and removes the file."""
        self.rows, self.columns = [], list(FIXED)
        self.path.unlink(missing_ok=True)

    def series(self, name: str, stage: str | None = None) -> tuple[list[int], list[float]]:
        """Steps and values of a column, empty cells left out, of one stage or of all."""
        rows = [row for row in self.rows if row.get(name) and stage in (None, row["stage"])]
        return [int(row["step"]) for row in rows], [float(row[name]) for row in rows]

    def _read(self) -> None:
        text = self.path.read_text()
        self._complete = text.endswith("\n")
        lines = text.splitlines() if self._complete else text.splitlines()[:-1]
        if not lines:
            return
        reader = csv.DictReader(lines)
        self.columns = list(dict.fromkeys([*FIXED, *(reader.fieldnames or [])]))
        self.rows = [{name: value for name, value in row.items() if value} for row in reader]

    def _rewrite(self) -> None:
        temporary = self.path.with_name(self.path.name + ".tmp")
        with open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(self.rows)
        os.replace(temporary, self.path)
        self._complete = True


def write_cell(value: Any) -> str:
    """A value as text: whole numbers and words as they are, other numbers with six significant digits."""
    return str(value) if isinstance(value, (int, str)) else f"{float(value):.6g}"


class MetricsCSV(Callback):
    """Writes metrics.csv: training scalars as means over the steps since the last row, validation and test results.

    Columns: step (optimizer steps done), epoch, stage ("train", "val" or "test"), seconds (of training, over all
    resumed parts), the metrics by their names, learning_rate, gradient_norm (before clipping), seconds_per_step,
    samples_per_second, tokens_per_second, memory_gb.

    Args:
        path: the file.
        meter: what measures the run.
        every: optimizer steps between two training rows.
    """

    def __init__(self, path: Path, meter: Meter, every: int = 10):
        self.table = Table(path)
        self.meter, self.every = meter, every
        self._seconds_before = 0.0
        self._last_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._last_step = trainer.global_step
        if not trainer.is_global_zero:
            return
        if trainer.global_step == 0:
            self.table.clear()
        else:
            self.table.keep_until(trainer.global_step)
        self._seconds_before = max((float(row.get("seconds", 0)) for row in self.table.rows), default=0.0)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step != self._last_step and trainer.global_step % self.every == 0:
            self._write_training(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write_training(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self._write(trainer, "val", {})

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer, "test", {})

    def _write_training(self, trainer: Trainer, task: LightningModule) -> None:
        means = self.meter.take_means()
        self._last_step = trainer.global_step
        if not means:
            return
        groups = trainer.optimizers[0].param_groups if trainer.optimizers else []
        figures = {
            **means,
            "learning_rate": max((group["lr"] for group in groups), default=None),
            "gradient_norm": task.gradient_norm,
            **self.meter.rates()._asdict(),
            "memory_gb": memory_bytes(task.device) / 1e9,
        }
        self._write(trainer, "train", figures)

    def _write(self, trainer: Trainer, stage: str, figures: dict[str, Any]) -> None:
        if not trainer.is_global_zero:
            return
        found = {name: v for name, v in trainer.callback_metrics.items() if name.startswith(f"{stage}/")}
        step = trainer.global_step
        if stage == "test" and step == 0 and self.table.rows:
            step = int(self.table.rows[-1]["step"])
        row = {"step": step, "epoch": self.meter.epoch, "stage": stage}
        row["seconds"] = round(self._seconds_before + self.meter.elapsed(), 3)
        self.table.add({**row, **(figures if stage == "train" else found)})
