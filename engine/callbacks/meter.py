"""Measures a run: seconds, samples and tokens a second, mean and smoothed losses. Other callbacks only read it.

By hand, because Lightning's ThroughputMonitor says nothing before its window is full (a short run would have no speed), waits for
the GPU after every batch, and counts the pictures and checkpoints between batches.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import psutil
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor


class Rates(NamedTuple):
    """Speed over the last batches; None where there is nothing to divide yet."""

    seconds_per_step: float | None
    samples_per_second: float | None
    tokens_per_second: float | None


class Stopwatch:
    """Seconds of several clocks since `start`, (clocks,), less those in which they were paused."""

    def __init__(self, *clocks: Callable[[], float]):
        self.clocks = clocks
        self.started: np.ndarray | None = None
        self._paused_at: np.ndarray | None = None
        self._paused = np.zeros(len(clocks))

    def now(self) -> np.ndarray:
        """What the clocks show."""
        return np.array([clock() for clock in self.clocks])

    def start(self) -> None:
        """Counts from zero."""
        self.started, self._paused, self._paused_at = self.now(), np.zeros(len(self.clocks)), None

    def pause(self, since: np.ndarray | None = None) -> None:
        """Stops counting, as of a moment that may lie back; once stopped, only such a moment changes it."""
        if self.started is not None and (self._paused_at is None or since is not None):
            self._paused_at = self.now() if since is None else since

    def resume(self) -> None:
        """Counts again."""
        self._paused, self._paused_at = self.paused_seconds, None

    @property
    def running(self) -> bool:
        """Whether it was started and is not paused."""
        return self.started is not None and self._paused_at is None

    @property
    def seconds(self) -> np.ndarray:
        """Seconds counted; 0 before the start."""
        if self.started is None:
            return np.zeros(len(self.clocks))
        return (self.now() if self._paused_at is None else self._paused_at) - self.started - self._paused

    @property
    def paused_seconds(self) -> np.ndarray:
        """Seconds not counted."""
        return self._paused if self._paused_at is None else self._paused + self.now() - self._paused_at


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
        self._watch = Stopwatch(clock, processor_clock)
        self.smoothed: dict[str, Tensor] = {}
        self.epoch = 0
        self.seconds_before = self.processor_before = 0.0
        self.window = window
        # Seconds, optimizer steps, samples and tokens (None: not known) after each of the last batches.
        self._marks: deque[tuple[float, int, int, int | None]] = deque()
        self._sums: dict[str, Tensor] = {}
        self._batches = self._seen = 0
        self._batch_ended: np.ndarray | None = None
        self._first_step, self._world = 0, 1

    def elapsed(self) -> float:
        """Seconds of training since this process started to train."""
        return float(self._watch.seconds[0])

    def processor_seconds(self) -> float:
        """Seconds of processor time that training took, over all threads, earlier parts of a resumed run included."""
        return self.processor_before + float(self._watch.seconds[1])

    @property
    def paused_seconds(self) -> float:
        """Seconds spent in validation and pictures since this process started to train."""
        return float(self._watch.paused_seconds[0])

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Work that is not training."""
        was_running = self._watch.running
        self._watch.pause()
        yield
        if was_running:
            self._watch.resume()

    def rates(self) -> Rates:
        """Speed over the last batches, all devices together."""
        if len(self._marks) < 2 or self._marks[-1][0] <= self._marks[0][0]:
            return Rates(None, None, None)
        pairs = zip(self._marks[0], self._marks[-1], strict=True)
        seconds, steps, samples, tokens = (None if None in pair else pair[1] - pair[0] for pair in pairs)
        per_second = self._world / seconds
        return Rates(
            seconds / steps if steps else None, samples * per_second, None if tokens is None else tokens * per_second
        )

    def remaining(self, trainer: Trainer) -> float | None:
        """Seconds until training ends at the present speed, validation included; None where it has no known end."""
        planned, seconds = planned_steps(trainer), self.rates().seconds_per_step
        if planned is None or seconds is None:
            return None
        done = trainer.global_step - self._first_step
        return max(0, planned - trainer.global_step) * (seconds + (self.paused_seconds / done if done else 0.0))

    def take_means(self) -> dict[str, float]:
        """Mean of every training scalar over the batches since the last call; empty where there was none."""
        means = {name: float(total) / self._batches for name, total in self._sums.items()} if self._batches else {}
        self._sums, self._batches = {}, 0
        return means

    def on_train_start(self, trainer: Trainer, task: LightningModule) -> None:
        self._watch.start()
        self._batch_ended = None
        self._first_step, self._world = trainer.global_step, trainer.world_size
        self._marks = deque(maxlen=self.window * trainer.accumulate_grad_batches + 1)

    def on_train_batch_start(self, trainer: Trainer, task: LightningModule, *_: Any) -> None:
        self._watch.resume()
        self._batch_ended = None

    def on_train_batch_end(self, trainer: Trainer, task: LightningModule, outputs: Any, batch: Any, *_: Any) -> None:
        self.epoch = trainer.current_epoch
        self.add(outputs["scalars"])
        samples, tokens = task.samples(batch), task.tokens(batch)
        if self._marks:
            samples += self._marks[-1][2]
            tokens = None if tokens is None or self._marks[-1][3] is None else tokens + self._marks[-1][3]
        self._marks.append((self.elapsed(), trainer.global_step, samples, tokens))
        self._batch_ended = self._watch.now()

    def on_validation_start(self, trainer: Trainer, task: LightningModule) -> None:
        # What came between the last batch and now (a checkpoint, say) was not training either.
        self._watch.pause(self._batch_ended)

    def on_train_end(self, trainer: Trainer, task: LightningModule) -> None:
        self._watch.pause()

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

    def add(self, scalars: dict[str, Tensor]) -> None:
        """Counts a batch's training scalars."""
        self._batches += 1
        self._seen += 1
        weight = max(0.05, 1 / self._seen)
        for name, value in scalars.items():
            value = value.detach().float()
            total, smooth = self._sums.get(name), self.smoothed.get(name)
            self._sums[name] = value.clone() if total is None else total.to(value.device) + value
            smoothed = value.clone() if smooth is None else torch.lerp(smooth.to(value.device), value, weight)
            self.smoothed[name] = smoothed


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
    return torch.cuda.max_memory_reserved(device) if device.type == "cuda" else psutil.Process().memory_info().rss
