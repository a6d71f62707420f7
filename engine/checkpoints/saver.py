"""Lightning's side of checkpoints: what goes into one, when one is written, and how a run goes on from one.

By hand, because ModelCheckpoint and OnExceptionCheckpoint write in the middle of accumulated gradients and of a validation, and
what they have written is resumed without the validation that was due. Here a resumed run equals the uninterrupted one.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path
from typing import Any

from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from ...data.module import Description
from ..callbacks import NonFinite, published_weights
from ..callbacks.best import is_best
from ..command_line.config import SCHEMA_VERSION, Config
from ..training.duration import parse_duration
from ..training.run_folder import write_config
from ..training.stop import StopRequest
from . import folder as files
from .stored_config import DESCRIPTION

MODEL = "model."
PUBLISHED, ABOUT = "published_weights", "about"


class CheckpointFolders(CheckpointIO):
    """Lets `trainer.save_checkpoint(folder)` and `trainer.fit(ckpt_path=folder)` use the folders of engine/checkpoints/folder.py.

    Attributes:
        current: the checkpoint that was written or read last.
    """

    def __init__(self) -> None:
        self.current: Path | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Writes a checkpoint below the folder `path`; `current` is where."""
        state = dict(checkpoint)
        published, about = state.pop(PUBLISHED), state.pop(ABOUT, None)
        trained = state.pop("state_dict")
        pairs = [(value, trained.get(f"{MODEL}{name}")) for name, value in published.items()]
        same = all(own is not None and own.data_ptr() == value.data_ptr() for value, own in pairs)
        # What the weights file holds already is not written twice; a weight average differs from what is trained.
        if same:
            trained = {name: value for name, value in trained.items() if name.removeprefix(MODEL) not in published}
        state["trained"], state["trained_in_weights_file"] = trained, same
        facts = {"epoch": state["epoch"]}
        self.current = files.write(Path(path), state["global_step"], published, state, facts, about)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """The checkpoint folder `path` as the dict that Lightning restores from."""
        self.current = Path(path)
        state = files.read_state(Path(path), files.RESUMABLE)
        trained = state.pop("trained")
        if state.pop("trained_in_weights_file"):
            trained |= {f"{MODEL}{name}": value for name, value in files.read_weights(Path(path)).items()}
        return {**state, "state_dict": trained}

    def remove_checkpoint(self, path: str | Path) -> None:
        """Nothing: engine/checkpoints/folder.py tidies up."""


class Saver(Callback):
    """Writes `last` before each validation, every so many steps, at the end, and when the run is to end early.

    It ends early where a signal asks for that, and where its time is over (Lightning's own timer counts on after resuming,
    and does not stop between optimizer steps). Goes last among the callbacks, so that what it saves is settled; `first` goes
    before all of them, because a weight average is lent to the task once validation starts.

    Args:
        folder: the run's checkpoints folder.
        io: the trainer's CheckpointIO.
        config: stored in each checkpoint as plain values.
        monitor: metric that chooses `best`, and whether its "max" or "min" is best; of equal ones the newest.
        stop: whether a signal has come.
        description: of the data that is learnt from.

    Attributes:
        best: the best value of the metric so far.
        started: training has begun: everything that was to be restored fitted.
        stepped: this process has trained on a batch.
        settled: the last batch ended an optimizer step; False while gradients are accumulated.
        time_over: trainer.time_limit has ended the run.
        validation_due: the last checkpoint was written for a validation that has not been finished.
    """

    def __init__(
        self, folder: Path, io: CheckpointFolders, config: Config, monitor: tuple[str, str], stop: StopRequest,
        description: Description,
    ):  # fmt: skip
        self.folder, self.io, self.config, self.stop = folder, io, config, stop
        self.description = description
        self.metric, self.direction = monitor
        self.every = config.trainer.checkpoint_every
        limit = parse_duration(config.trainer.time_limit)
        self.seconds = None if limit is None else limit.total_seconds()
        self.best: float | None = None
        self.started = self.stepped = self.time_over = self.validation_due = False
        self.settled = True
        self.first = First(self)
        self._began, self._step = 0.0, 0
        self._saved: int | None = None
        self._validated: int | None = None

    def on_train_start(self, trainer: Trainer, task: LightningModule) -> None:
        self.started, self._began, self._step = True, time.monotonic(), trainer.global_step
        # Lightning goes on after the validation that the checkpoint was written for, without having made it.
        if self.validation_due:
            loop = trainer.fit_loop.epoch_loop.val_loop
            trainer.validating = True
            loop.run()
            trainer.training = True
            # What a resumed loop reads as "this epoch is over"; Lightning has no public name for it.
            loop._has_run = False

    def on_train_batch_end(self, trainer: Trainer, task: LightningModule, *_: Any) -> None:
        self.stepped, self.settled = True, trainer.global_step != self._step
        self._step = trainer.global_step
        # Half of an accumulated gradient is in no checkpoint.
        if not self.settled:
            return
        validates = validation_follows(trainer)
        if self.seconds is not None:
            self.time_over = trainer.strategy.broadcast(time.monotonic() - self._began >= self.seconds)
            trainer.should_stop = trainer.should_stop or self.time_over
        # Before a validation `first` does it all.
        if validates:
            return
        # The last step's, as within its epoch: Lightning is about to count that as over, and a longer run goes on with its rest.
        over = 0 < trainer.max_steps <= self._step
        self.validation_due = self.validation_due or over
        if over or self.stop_asked(trainer) or self.time_over or (self.every and self._step % self.every == 0):
            self.save(trainer)
        self.stop.check()

    def on_validation_batch_end(self, trainer: Trainer, task: LightningModule, *_: Any) -> None:
        # Where gradients are half accumulated there is no checkpoint of this step to go on from.
        if (self.validation_due or self.has_saved(trainer)) and self.stop_asked(trainer):
            self.stop.check()

    def on_validation_end(self, trainer: Trainer, task: LightningModule) -> None:
        self.validation_due, self._validated = False, trainer.global_step
        value = trainer.callback_metrics.get(self.metric)
        if self.settled and value is not None and is_best(float(value), self.best, self.direction):
            self.best = float(value)
            if trainer.is_global_zero:
                files.point(self.folder, "best", self.io.current)
        if trainer.is_global_zero:
            files.tidy(self.folder)

    def on_train_end(self, trainer: Trainer, task: LightningModule) -> None:
        # The last weights may be the best, wherever the validations before them fell.
        self.validation_due = self.validation_due or self._validated != trainer.global_step
        if not self.has_saved(trainer):
            self.save(trainer)

    def on_test_batch_end(self, trainer: Trainer, task: LightningModule, *_: Any) -> None:
        if self.stop_asked(trainer):
            self.stop.check()

    def on_exception(self, trainer: Trainer, task: LightningModule, exception: BaseException) -> None:
        # The checkpoint was written for the validation that has just shown it to be worth nothing.
        if isinstance(exception, NonFinite) and exception.quantity == "validation loss" and trainer.is_global_zero:
            before = [path for path in files.checkpoints(self.folder) if path != self.io.current]
            if before:
                files.point(self.folder, "last", before[0])

    def on_save_checkpoint(self, trainer: Trainer, task: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[PUBLISHED] = published_weights(trainer, task)
        described = {DESCRIPTION: self.description.plain()}
        checkpoint[ABOUT] = {**described, "model": self.config.model, "scan": self.config.scan}
        checkpoint["config"] = {"schema_version": SCHEMA_VERSION, **self.config.plain()}

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "validation_due": self.validation_due}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.validation_due = state_dict["best"], state_dict["validation_due"]

    def has_saved(self, trainer: Trainer) -> bool:
        """Whether this process has written a checkpoint of the present step."""
        return self._saved == trainer.global_step

    def stop_asked(self, trainer: Trainer) -> bool:
        """Whether a signal has come, to any of the processes: they stop together or wait for each other for ever."""
        asked = self.stop.received is not None
        if trainer.world_size > 1 and trainer.strategy.reduce_boolean_decision(asked, all=False) and not asked:
            self.stop.received = signal.SIGTERM
        return self.stop.received is not None

    def save(self, trainer: Trainer) -> None:
        """Writes a checkpoint and makes it `last`."""
        if trainer.is_global_zero and not self.folder.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.folder.parent))
        trainer.save_checkpoint(self.folder)
        if trainer.is_global_zero:
            files.point(self.folder, "last", self.io.current)
            files.tidy(self.folder)
            if self._saved is None:
                # Once there is a checkpoint of them, the settings that a resumed run was given are the run's.
                write_config(self.folder.parent, self.config)
        self._saved = trainer.global_step


class First(Callback):
    """What a `Saver` does before the other callbacks: checks what was restored, takes signals back, saves before a validation."""

    def __init__(self, saver: Saver):
        self.saver = saver

    def on_train_start(self, trainer: Trainer, task: LightningModule) -> None:
        self.saver.stop.listen()
        # Here, before any callback writes into the run folder.
        check_restored(trainer)

    def on_validation_start(self, trainer: Trainer, task: LightningModule) -> None:
        saver = self.saver
        saver.stop.listen()
        # A validation that is made after resuming, or because the time is over, has its checkpoint already.
        if saver.validation_due or saver.has_saved(trainer) or not saver.settled:
            return
        saver.validation_due = True
        saver.save(trainer)
        if saver.stop_asked(trainer):
            saver.stop.check()

    def on_test_start(self, trainer: Trainer, task: LightningModule) -> None:
        self.saver.stop.listen()


def validation_follows(trainer: Trainer) -> bool:
    """Whether Lightning validates after the batch that has just been trained on; its own answer has no public name."""
    epochs, loop = trainer.check_val_every_n_epoch, trainer.fit_loop
    if not trainer.enable_validation or (epochs is not None and (trainer.current_epoch + 1) % epochs):
        return False
    batches = loop.total_batch_idx if epochs is None else loop.batch_idx
    return trainer.should_stop or (batches + 1) % trainer.val_check_batch == 0


def check_restored(trainer: Trainer) -> None:
    """Raises ValueError where an optimizer's state is not of its parameters: fused optimizers write past its end."""
    for optimizer in trainer.optimizers:
        for parameter, state in optimizer.state.items():
            for name, value in state.items():
                if isinstance(value, Tensor) and value.dim() and value.shape != parameter.shape:
                    raise ValueError(
                        f"the optimizer's {name} of shape {tuple(value.shape)} is not of a weight of {tuple(parameter.shape)}"
                    )
