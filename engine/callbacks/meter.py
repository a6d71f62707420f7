"""Measures a run: seconds, samples and tokens a second, mean and smoothed losses. Other callbacks only read it."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import psutil
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor


class Mark(NamedTuple):
    """What had been done at one moment of training."""

    seconds: float
    steps: int
    samples: int
    tokens: int | None


class Rates(NamedTuple):
    """Speed over the last batches; None where there is nothing to divide yet."""

    seconds_per_step: float | None
    samples_per_second: float | None
    tokens_per_second: float | None


class Stopwatch:
    """Seconds of a clock since `start`, less those in which it was paused.

    Args:
        clock: seconds from any fixed moment.
    """

    def __init__(self, clock: Callable[[], float]):
        self.clock = clock
        self._started: float | None = None
        self._paused_at: float | None = None
        self._paused = 0.0

    def start(self) -> None:
        """Counts from zero."""
        self._started, self._paused, self._paused_at = self.clock(), 0.0, None

    def pause(self, since: float | None = None) -> None:
        """Stops counting, as of a moment of the clock that may lie back; once stopped, only such a moment changes it."""
        if self._started is not None and (self._paused_at is None or since is not None):
            self._paused_at = self.clock() if since is None else since

    def resume(self) -> None:
        """Counts again."""
        if self._paused_at is not None:
            self._paused += self.clock() - self._paused_at
            self._paused_at = None

    @property
    def running(self) -> bool:
        """Whether it was started and is not paused."""
        return self._started is not None and self._paused_at is None

    @property
    def seconds(self) -> float:
        """Seconds counted; 0 before the start."""
        if self._started is None:
            return 0.0
        now = self.clock() if self._paused_at is None else self._paused_at
        return now - self._started - self._paused

    @property
    def paused_seconds(self) -> float:
        """Seconds not counted."""
        return self._paused + (0.0 if self._paused_at is None else self.clock() - self._paused_at)


class Meter(Callback):
    """Counts what training does and the time it takes; validation, what surrounds it (checkpoints), and pictures do not count.

    Put it first among the callbacks: the others read what it has counted.

    Args:
        window: number of optimizer steps that the speed is averaged over.
        clock: seconds from any fixed moment.
        processor_clock: seconds of processor time that this process has taken, over all its threads.

    Attributes:
        smoothed: moving average of every training scalar ("train/loss", …), as tensors on the model's device, so that
            nothing waits for the device until somebody looks.
        epoch: epoch of the last batch, from 0 (the trainer's own is one further once training has ended).
        seconds_before, processor_before: what earlier parts of a resumed run took.
    """

    def __init__(
        self,
        window: int = 50,
        clock: Callable[[], float] = time.perf_counter,
        processor_clock: Callable[[], float] = time.process_time,
    ):
        self._watch, self._processor = Stopwatch(clock), Stopwatch(processor_clock)
        self.smoothed: dict[str, Tensor] = {}
        self.epoch = 0
        self.seconds_before = self.processor_before = 0.0
        self.window = window
        self._marks: deque[Mark] = deque()
        self._sums: dict[str, Tensor] = {}
        self._batches = 0
        self._seen = 0
        self._batch_ended: tuple[float, float] | None = None
        self._first_step = 0
        self._world = 1
        self._samples, self._tokens = 0, 0

    def elapsed(self) -> float:
        """Seconds of training since this process started to train."""
        return self._watch.seconds

    def processor_seconds(self) -> float:
        """Seconds of processor time that training took, over all threads, earlier parts of a resumed run included."""
        return self.processor_before + self._processor.seconds

    @property
    def paused_seconds(self) -> float:
        """Seconds spent in validation and pictures since this process started to train."""
        return self._watch.paused_seconds

    def pause(self) -> None:
        """Stops counting time; does nothing where it is stopped."""
        self._watch.pause()
        self._processor.pause()

    def resume(self) -> None:
        """Counts time again."""
        self._watch.resume()
        self._processor.resume()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Work that is not training."""
        was_running = self._watch.running
        self.pause()
        yield
        if was_running:
            self.resume()

    def rates(self) -> Rates:
        """Speed over the last batches, all devices together."""
        if len(self._marks) < 2 or self._marks[-1].seconds <= self._marks[0].seconds:
            return Rates(None, None, None)
        first, last = self._marks[0], self._marks[-1]
        seconds, steps = last.seconds - first.seconds, last.steps - first.steps
        samples = (last.samples - first.samples) * self._world / seconds
        tokens = None if last.tokens is None or first.tokens is None else last.tokens - first.tokens
        return Rates(
            seconds / steps if steps else None, samples, None if tokens is None else tokens * self._world / seconds
        )

    def remaining(self, trainer: Trainer) -> float | None:
        """Seconds until training ends at the present speed, validation included; None where it has no known end."""
        planned, rates = planned_steps(trainer), self.rates()
        if planned is None or rates.seconds_per_step is None:
            return None
        done = trainer.global_step - self._first_step
        pauses = self.paused_seconds / done if done else 0.0
        return max(0, planned - trainer.global_step) * (rates.seconds_per_step + pauses)

    def take_means(self) -> dict[str, float]:
        """Mean of every training scalar over the batches since the last call; empty where there was none."""
        means = {name: float(total) / self._batches for name, total in self._sums.items()} if self._batches else {}
        self._sums, self._batches = {}, 0
        return means

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._watch.start()
        self._processor.start()
        self._batch_ended = None
        self._first_step, self._world = trainer.global_step, trainer.world_size
        self._samples, self._tokens = 0, 0
        self._marks = deque(maxlen=self.window * trainer.accumulate_grad_batches + 1)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.resume()
        self._batch_ended = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.epoch = trainer.current_epoch
        self._add(outputs["scalars"])
        self._samples += pl_module.samples(batch)
        tokens = pl_module.tokens(batch)
        self._tokens = None if tokens is None or self._tokens is None else self._tokens + tokens
        self._marks.append(Mark(self.elapsed(), trainer.global_step, self._samples, self._tokens))
        self._batch_ended = self._watch.clock(), self._processor.clock()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # What came between the last batch and now (a checkpoint, say) was not training either.
        self.pause()
        if self._batch_ended is not None:
            self._watch.pause(self._batch_ended[0])
            self._processor.pause(self._batch_ended[1])

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.pause()

    def state_dict(self) -> dict[str, Any]:
        # The sums, so that the means of a resumed run's first row cover the same batches as an uninterrupted run's.
        return {
            "seconds": self.seconds_before + self.elapsed(),
            "processor_seconds": self.processor_seconds(),
            "epoch": self.epoch,
            "seen": self._seen,
            "smoothed": dict(self.smoothed),
            "sums": dict(self._sums),
            "batches": self._batches,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.seconds_before = state_dict["seconds"]
        self.processor_before = state_dict.get("processor_seconds", 0.0)
        self.epoch, self._seen = state_dict["epoch"], state_dict["seen"]
        self.smoothed = dict(state_dict["smoothed"])
        self._sums, self._batches = dict(state_dict["sums"]), state_dict["batches"]

    def _add(self, scalars: dict[str, Tensor]) -> None:
        self._batches += 1
        self._seen += 1
        weight = max(0.05, 1 / self._seen)
        for name, value in scalars.items():
            value = value.detach().float()
            total, smooth = self._sums.get(name), self.smoothed.get(name)
            self._sums[name] = value.clone() if total is None else total.to(value.device) + value
            self.smoothed[name] = (
                value.clone() if smooth is None else torch.lerp(smooth.to(value.device), value, weight)
            )


def planned_steps(trainer: Trainer) -> int | None:
    """Optimizer steps until training ends by its limits on epochs and steps; None where nothing limits them.

    Lightning's `estimated_stepping_batches` is not asked: it makes a resumed run lose its place in the data.
    """
    limits = []
    batches = trainer.num_training_batches
    if trainer.max_epochs not in (None, -1) and math.isfinite(batches):
        limits.append(math.ceil(batches / trainer.accumulate_grad_batches) * trainer.max_epochs)
    if trainer.max_steps not in (None, -1):
        limits.append(trainer.max_steps)
    return int(min(limits)) if limits else None


def memory_bytes(device: torch.device) -> int:
    """Memory in use: the process's resident set on a CPU, the peak of the allocator on a GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    return psutil.Process().memory_info().rss
