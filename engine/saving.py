"""Lightning's side of checkpoints: what goes into one, when one is written, and how a run goes on from one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer

from . import checkpoint as files
from .callbacks import published_weights
from .callbacks.best import is_best
from .config import SCHEMA_VERSION, Config
from .stop import Stopped, StopRequest

MODEL = "model."
PUBLISHED = "published_weights"


class CheckpointFolders(CheckpointIO):
    """Lets `trainer.save_checkpoint(folder)` and `trainer.fit(ckpt_path=folder)` use the folders of engine/checkpoint.py."""

    def __init__(self) -> None:
        self.written: Path | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Writes a checkpoint below the folder `path`; `written` is where."""
        state = dict(checkpoint)
        published = state.pop(PUBLISHED)
        trained = state.pop("state_dict")
        same = all(trained.get(f"{MODEL}{name}") is not None for name in published) and all(
            value.data_ptr() == trained[f"{MODEL}{name}"].data_ptr() for name, value in published.items()
        )
        # What the weights file holds already is not written twice; a weight average differs from what is trained.
        if same:
            trained = {name: value for name, value in trained.items() if name.removeprefix(MODEL) not in published}
        state["trained"], state["trained_in_weights_file"] = trained, same
        self.written = files.write(Path(path), state["global_step"], published, state, {"epoch": state["epoch"]})

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """The checkpoint folder `path` as the dict that Lightning restores from."""
        state = files.read_state(Path(path))
        trained = state.pop("trained")
        if state.pop("trained_in_weights_file"):
            trained |= {f"{MODEL}{name}": value for name, value in files.read_weights(Path(path)).items()}
        return {**state, "state_dict": trained}

    def remove_checkpoint(self, path: str | Path) -> None:
        """Nothing: engine/checkpoint.py tidies up."""


class Saver(Callback):
    """Writes `last` before each validation, every so many steps, at the end, and when a signal asks the run to end.

    Goes last among the callbacks, so that what it saves is settled; `before_validation` goes first, because a weight
    average is lent to the task once validation starts.

    Args:
        folder: the run's checkpoints folder.
        io: the trainer's CheckpointIO.
        config: stored in each checkpoint as plain values.
        monitor: metric that chooses `best`, and whether its "max" or "min" is best; of equal ones the newest.
        stop: whether a signal has come.

    Attributes:
        best: the best value of the metric so far.
        settled: the last batch ended an optimizer step; False while gradients are accumulated.
        validation_due: the last checkpoint was written for a validation that has not been finished.
    """

    def __init__(
        self, folder: Path, io: CheckpointFolders, config: Config, monitor: tuple[str, str], stop: StopRequest
    ):
        self.folder, self.io, self.config, self.stop = folder, io, config, stop
        self.metric, self.direction = monitor
        self.every = config.trainer.checkpoint_every
        self.best: float | None = None
        self.validation_due = False
        self.settled = True
        self._step = 0
        self._saved: int | None = None
        self._validated: int | None = None
        self.before_validation = _BeforeValidation(self)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._step = trainer.global_step
        # Lightning goes on after the validation that the checkpoint was written for, without having made it.
        if self.validation_due:
            loop = trainer.fit_loop.epoch_loop.val_loop
            trainer.validating = True
            loop.run()
            trainer.training = True
            # What a resumed loop reads as "this epoch is over".
            loop._has_run = False

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.settled = trainer.global_step != self._step
        self._step = trainer.global_step
        loop = trainer.fit_loop
        # Half of an accumulated gradient is in no checkpoint; and before a validation `_BeforeValidation` does it all.
        if not self.settled or loop.epoch_loop._should_check_val_fx(loop._data_fetcher):
            return
        if self.stop.received is not None:
            self.save(trainer)
            raise Stopped(self.stop.received, trainer.global_step, self.folder.parent)
        if self.every and self._step % self.every == 0:
            self.save(trainer)

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if self.stop.received is not None and self.validation_due and not trainer.sanity_checking:
            raise Stopped(self.stop.received, trainer.global_step, self.folder.parent)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        self.validation_due = False
        self._validated = trainer.global_step
        value = trainer.callback_metrics.get(self.metric)
        if self.settled and value is not None and is_best(float(value), self.best, self.direction):
            self.best = float(value)
            if trainer.is_global_zero:
                files.point(self.folder, "best", (self.folder / "last").resolve())
        if trainer.is_global_zero:
            files.tidy(self.folder)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # The last weights may be the best, wherever the validations before them fell.
        if self._validated != trainer.global_step:
            self.validation_due = True
        if self._saved != trainer.global_step:
            self.save(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[PUBLISHED] = published_weights(trainer, pl_module)
        checkpoint["config"] = {"schema_version": SCHEMA_VERSION, **self.config.plain()}

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "validation_due": self.validation_due}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.validation_due = state_dict["best"], state_dict["validation_due"]

    def save(self, trainer: Trainer) -> None:
        """Writes a checkpoint and makes it `last`."""
        trainer.save_checkpoint(self.folder)
        self._saved = trainer.global_step
        if trainer.is_global_zero:
            files.point(self.folder, "last", self.io.written)
            files.tidy(self.folder)


class _BeforeValidation(Callback):
    def __init__(self, saver: Saver):
        self.saver = saver

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # A validation that is made after resuming has its checkpoint already.
        if trainer.sanity_checking or self.saver.validation_due or not self.saver.settled:
            return
        self.saver.validation_due = True
        self.saver.save(trainer)
        if self.saver.stop.received is not None:
            raise Stopped(self.saver.stop.received, trainer.global_step, self.saver.folder.parent)
