"""progress.png: loss, main metric, learning rate and seconds per step over the run, drawn from metrics.csv's rows."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from lightning.pytorch import Callback, LightningModule, Trainer

from ...core.pictures import save_figure
from .meter import Meter
from .table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"train": "#8da0b8", "val": "#0b5fa5", "test": "#c2410c"}
INK, FAINT = "#222222", "#888888"


class ProgressPicture(Callback):
    """Redraws progress.png after validations, and at the end.

    Drawing happens in the training process and the meter does not count it; it takes at most a fiftieth of the time.

    Args:
        path: the file.
        table: the rows to draw.
        meter: what measures the run.
        every_seconds: least time between two drawings.
        clock: seconds from any fixed moment.
    """

    def __init__(
        self,
        path: Path,
        table: Table,
        meter: Meter,
        every_seconds: float = 15.0,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.path, self.table, self.meter = Path(path), table, meter
        self.every_seconds, self.clock = every_seconds, clock
        self._not_before = 0.0

    def on_train_start(self, trainer: Trainer, task: LightningModule) -> None:
        self._not_before = self.clock() + self.every_seconds

    def on_validation_end(self, trainer: Trainer, task: LightningModule) -> None:
        if not trainer.sanity_checking and self.clock() >= self._not_before:
            self._draw(trainer, task)

    def on_train_end(self, trainer: Trainer, task: LightningModule) -> None:
        self._draw(trainer, task)

    on_test_end = on_train_end

    def on_exception(self, trainer: Trainer, task: LightningModule, exception: BaseException) -> None:
        # A full disk, say, must not hide what went wrong.
        with suppress(OSError):
            self._draw(trainer, task)

    def _draw(self, trainer: Trainer, task: LightningModule) -> None:
        if not trainer.is_global_zero or not self.table.rows:
            return
        started = self.clock()
        with self.meter.paused():
            save_figure(draw_progress(self.table, *task.monitor), self.path)
        self._not_before = self.clock() + max(self.every_seconds, 50 * (self.clock() - started))


def draw_progress(table: Table, monitor: str, direction: str) -> Figure:
    """Draws four panels over optimizer steps: loss, main metric, learning rate, seconds per step.

    Args:
        table: rows of metrics.csv.
        monitor: the main metric, like "val/accuracy".
        direction: "max" or "min", which of its values is best.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6.4), dpi=110, facecolor="white")
    axes = figure.subplots(2, 2)
    figure.subplots_adjust(left=0.07, right=0.98, bottom=0.075, top=0.955, wspace=0.16, hspace=0.22)
    metric = monitor.split("/", 1)[1]
    draw_curves(axes[0, 0], table, "loss", "min")
    if metric == "loss":
        draw_single(axes[0, 1], table, "gradient_norm", "norm of the gradient")
    else:
        draw_curves(axes[0, 1], table, metric, direction)
    draw_single(axes[1, 0], table, "learning_rate", "learning rate")
    draw_single(axes[1, 1], table, "seconds_per_step", "seconds per step")
    for axis in axes[1]:
        axis.set_xlabel("step", color=INK, fontsize=9)
    return figure


def draw_curves(axis: Axes, table: Table, metric: str, direction: str) -> None:
    """One metric's training, validation and test values, with the best validation marked."""
    dress(axis, metric.replace("_", " "))
    for stage in ("train", "val"):
        steps, values = table.series(f"{stage}/{metric}", stage)
        if steps:
            marker = "o" if len(steps) == 1 or (stage == "val" and len(steps) <= 40) else None
            axis.plot(steps, values, color=COLOURS[stage], lw=1.6, marker=marker, ms=3.5, label=stage)
            if stage == "val":
                best = (max if direction == "max" else min)(reversed(range(len(values))), key=values.__getitem__)
                axis.plot(steps[best], values[best], "o", ms=8, mfc="none", mec=COLOURS["val"], mew=1.4)
                axis.lines[-1].set_label(f"best val {values[best]:.4g} at step {steps[best]:,}")
    steps, values = table.series(f"test/{metric}", "test")
    if steps:
        axis.plot(steps[-1], values[-1], "D", ms=6, color=COLOURS["test"], label=f"test {values[-1]:.4g}")
    if axis.lines:
        axis.legend(frameon=False, fontsize=8)


def draw_single(axis: Axes, table: Table, column: str, title: str) -> None:
    """One column of the training rows."""
    dress(axis, title)
    steps, values = table.series(column, "train")
    if steps:
        axis.plot(steps, values, color=COLOURS["val"], lw=1.6, marker="o" if len(steps) == 1 else None, ms=3.5)
        axis.set_ylim(bottom=0)


def dress(axis: Axes, title: str) -> None:
    """Plain axes: title to the left, faint grid, no box."""
    axis.set_title(title, loc="left", fontsize=10, color=INK, weight="bold")
    axis.grid(True, color="#e6e6e6", lw=0.7)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(FAINT)
    axis.tick_params(colors=INK, labelsize=8)
    axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
