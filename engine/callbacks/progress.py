"""Where training stands: a bar on a terminal, now and then a line anywhere else.

By hand, because Lightning's bars count the batches of one epoch, where a run is so many steps long, know no time left that counts
validations, and write thousands of lines into a log file. The bar itself is rich's.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any, TextIO

from lightning.pytorch import Callback, LightningModule, Trainer
from rich import progress as rich_progress
from rich.console import Console, RenderableType
from rich.text import Text

from ...core.errors import UserError
from .best import is_best
from .meter import Meter, memory_bytes, planned_steps


class Progress(Callback):
    """Shows step, loss (smoothed), other training scalars, learning rate, speed, memory and time left.

    The device is waited for only when something is shown. Give the trainer `enable_progress_bar=False`.

    Args:
        meter: what measures the run.
        style: "bar", "lines", "none", or "auto": a bar where the stream is a terminal, lines where it is not.
        every_seconds: least time between two lines.
        stream: where to write; None for standard output.
        clock: seconds from any fixed moment.
    """

    def __init__(
        self,
        meter: Meter,
        style: str = "auto",
        every_seconds: float = 10.0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        stream = stream or sys.stdout
        self.meter, self.clock = meter, clock
        self.style = resolve_style(style, stream)
        self.display = DISPLAYS[self.style](stream)
        self.every_seconds = every_seconds if self.style == "lines" else 0.2
        self._shown_at = self._evaluated_at = -math.inf
        self._shown_step: int | None = None
        self._validation_started = 0.0
        self._best: float | None = None

    def setup(self, trainer: Trainer, task: LightningModule, stage: str) -> None:
        if not trainer.is_global_zero:
            self.display = SilentDisplay(sys.stdout)

    def on_train_start(self, trainer: Trainer, task: LightningModule) -> None:
        self._shown_at, self._shown_step = -math.inf, trainer.global_step
        self.display.start(planned_steps(trainer), trainer.global_step)

    def on_train_batch_end(self, trainer: Trainer, task: LightningModule, *_: Any) -> None:
        if trainer.global_step != self._shown_step and self.clock() - self._shown_at >= self.every_seconds:
            self._show(trainer, task)

    def on_validation_start(self, trainer: Trainer, task: LightningModule) -> None:
        self._validation_started = self.clock()

    def on_validation_batch_end(
        self, trainer: Trainer, task: Any, outputs: Any, batch: Any, index: int, *_: Any
    ) -> None:
        if not trainer.sanity_checking:
            self._show_evaluation("validating", index + 1, sum(trainer.num_val_batches))

    def on_validation_end(self, trainer: Trainer, task: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        found, (name, direction) = stage_metrics(trainer.callback_metrics, "val"), task.monitor
        value, note = found.get(name.removeprefix("val/")), ""
        if value is not None and is_best(value, self._best, direction):
            self._best, note = value, "  best so far"
        seconds, where = self.clock() - self._validation_started, step_text(trainer.global_step, planned_steps(trainer))
        self.display.result(f"{where}  validation  {metrics_text(found)}  ({seconds:.1f} s){note}")
        if trainer.state.fn != "fit":
            self.display.stop()

    def on_test_batch_end(self, trainer: Trainer, task: Any, outputs: Any, batch: Any, index: int, *_: Any) -> None:
        self._show_evaluation("testing", index + 1, sum(trainer.num_test_batches))

    def on_test_end(self, trainer: Trainer, task: LightningModule) -> None:
        self.display.result(f"test  {metrics_text(stage_metrics(trainer.callback_metrics, 'test'))}")
        self.display.stop()

    def on_train_end(self, trainer: Trainer, task: LightningModule) -> None:
        if trainer.global_step != self._shown_step:
            self._show(trainer, task)
        self.display.stop()

    def on_exception(self, trainer: Trainer, task: LightningModule, exception: BaseException) -> None:
        self.display.stop()

    def state_dict(self) -> dict[str, Any]:
        return {"best": self._best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._best = state_dict["best"]

    def _show_evaluation(self, what: str, batch: int, batches: float) -> None:
        if batch == batches or self.clock() - self._evaluated_at >= self.every_seconds:
            self.display.evaluating(what, batch, batches)
            self._evaluated_at = self.clock()

    def _show(self, trainer: Trainer, task: LightningModule) -> None:
        # Reading the scalars waits for the device; the clock must be read after that.
        scalars = stage_metrics(self.meter.smoothed, "train")
        rates = self.meter.rates()
        parts = [
            epoch_text(self.meter.epoch, trainer.max_epochs),
            metrics_text(scalars),
            f"lr {trainer.optimizers[0].param_groups[0]['lr']:.2e}" if trainer.optimizers else "",
            rate_text(rates.samples_per_second, "samples/s"),
            rate_text(rates.tokens_per_second, "tokens/s"),
            f"{memory_bytes(task.device) / 1e9:.1f} GB",
        ]
        figures = "  ".join(part for part in parts if part)
        self.display.training(trainer.global_step, planned_steps(trainer), figures, self.meter.remaining(trainer))
        self._shown_at, self._shown_step = self.clock(), trainer.global_step


class SilentDisplay:
    """Shows nothing; the interface of the displays."""

    def __init__(self, stream: TextIO):
        self.stream = stream

    def start(self, planned: int | None, done: int) -> None:
        """Training begins; `planned` steps in all, `done` of them by the run that this one continues."""

    def training(self, step: int, planned: int | None, figures: str, remaining: float | None) -> None:
        """Training stands at `step`; `remaining` seconds are left."""

    def evaluating(self, what: str, batch: int, batches: float) -> None:
        """Validation or test stands at `batch`."""

    def result(self, line: str) -> None:
        """A line that stays: what a validation or a test found."""

    def stop(self) -> None:
        """Training or a test is over."""


class LineDisplay(SilentDisplay):
    """One line a report, for pipes and log files."""

    def training(self, step: int, planned: int | None, figures: str, remaining: float | None) -> None:
        self.result("  ".join(filter(None, [step_text(step, planned), figures, left_text(remaining or None)])))

    def result(self, line: str) -> None:
        print(line, file=self.stream, flush=True)


class Bar(rich_progress.Progress):
    """rich's bar with a line of figures below it."""

    figures = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        if self.figures:
            yield Text(fitting(self.figures, self.console.width), style="dim", no_wrap=True, overflow="ellipsis")


class BarDisplay(SilentDisplay):
    """A bar with a line of figures below it, redrawn in place; results scroll by above."""

    def __init__(self, stream: TextIO, width: int | None = None):
        super().__init__(stream)
        self.console = Console(file=stream, force_terminal=True, width=width, highlight=False)
        self._bar: Bar | None = None
        self._training = False

    def start(self, planned: int | None, done: int) -> None:
        self._training = True
        self._update(total=planned, completed=done, description=step_text(done, planned))

    def training(self, step: int, planned: int | None, figures: str, remaining: float | None) -> None:
        self._bar.figures = figures
        self._update(completed=step, description=step_text(step, planned), note=left_text(remaining))

    def evaluating(self, what: str, batch: int, batches: float) -> None:
        text = f"{what} {batch}/{batches:g}"
        self._update(
            **({"note": text} if self._training else {"description": text, "completed": batch, "total": batches})
        )

    def result(self, line: str) -> None:
        self.console.print(line, soft_wrap=True, markup=False)

    def stop(self) -> None:
        if self._bar is not None:
            self._update(note="")
            self._bar.stop()
        self._bar, self._training = None, False

    def _update(self, **fields: Any) -> None:
        if self._bar is None:
            text, width = rich_progress.TextColumn, rich_progress.BarColumn(bar_width=None)
            # No thread of its own: redrawn when there is something new, so that it takes no time from training.
            settings = {"console": self.console, "expand": True, "auto_refresh": False, "transient": not self._training}
            self._bar = Bar(text("{task.description}"), width, text("{task.fields[note]}"), **settings)
            self._bar.add_task("", total=None, note="")
        self._bar.update(self._bar.task_ids[0], **fields)
        self._bar.start()
        self._bar.refresh()


DISPLAYS = {"bar": BarDisplay, "lines": LineDisplay, "none": SilentDisplay}


def fitting(figures: str, width: int) -> str:
    """As many of the figures, two spaces between them, as a line of that width holds; the first are the likeliest to matter."""
    parts = figures.split("  ")
    while len(parts) > 1 and len("  ".join(parts)) > width:
        parts.pop()
    return "  ".join(parts)


def resolve_style(style: str, stream: TextIO) -> str:
    """What "auto" means for a stream: a bar on a terminal that can move its cursor, lines elsewhere."""
    if style not in ("auto", *DISPLAYS):
        allowed = ("auto", *DISPLAYS)
        raise UserError("trainer.progress is not known", given=style, allowed=allowed, do="trainer.progress=auto")
    if style != "auto":
        return style
    return "bar" if stream.isatty() and os.environ.get("TERM") not in ("dumb", "") else "lines"


def stage_metrics(metrics: Mapping[str, Any], stage: str) -> dict[str, float]:
    """The metrics of one stage without its name, loss first; what Lightning adds with _step and _epoch left out."""
    prefix = f"{stage}/"
    named = {name[len(prefix) :]: float(value) for name, value in metrics.items() if name.startswith(prefix)}
    plain = {name: value for name, value in named.items() if not name.endswith(("_step", "_epoch"))}
    return dict(sorted(plain.items(), key=lambda item: (item[0] != "loss", item[0])))


def metrics_text(metrics: Mapping[str, float]) -> str:
    """Names and values, accuracies in percent: `loss 0.4123  accuracy 87.10%`."""
    return "  ".join(
        f"{name} {value:.2%}" if name.startswith("accuracy") else f"{name} {value:.4f}"
        for name, value in metrics.items()
    )


def step_text(step: int, planned: int | None) -> str:
    """`step  120/1500`, of constant width during a run."""
    return f"step {step}" if planned is None else f"step {step:>{len(str(planned))}}/{planned}"


def epoch_text(epoch: int, epochs: int | None) -> str:
    """`epoch 3/38`: `epoch` counts from 0, the text from 1."""
    return f"epoch {epoch + 1}" + (f"/{epochs}" if epochs not in (None, -1) else "")


def rate_text(rate: float | None, unit: str) -> str:
    """`2,310 samples/s`; nothing where there is no rate."""
    return "" if rate is None else f"{rate:,.{0 if rate >= 10 else 2}f} {unit}"


def left_text(seconds: float | None) -> str:
    """`0:12:03 left`, `2 days, 3:07:00 left`; nothing where that is not known."""
    return "" if seconds is None else f"{timedelta(seconds=round(seconds))} left"
