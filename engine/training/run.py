"""The main job: build, print the plan, train, test the best weights, say what to type next."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import UserError
from ..checkpoints import folder as files
from ..checkpoints.initial_weights import read_initial
from ..command_line.config import Config
from .assembly import KEPT, Parts, build_parts
from .environment import describe_environment
from .hardware import Hardware, choose_hardware
from .optimizer import build_optimizer
from .plan import Length, plan_length, resolve_backend, write_plan
from .run_folder import is_first, locked, new_run_folder, run_of, start
from .stop import Failed, Stopped, StopRequest, listening
from .targets import named_settings, one_line
from .trainer import make_trainer, quiet, require_tensorboard

if TYPE_CHECKING:
    from ..checkpoints.saver import Saver


@dataclass(frozen=True)
class Result:
    """What a run came to.

    Args:
        folder: the run folder.
        metrics: the test metrics of the best weights, by name.
        task: the trained task; its model holds the best weights.
        ended: what ended the run before all its steps were made; None: nothing.
    """

    folder: Path
    metrics: dict[str, float] = field(default_factory=dict)
    task: Any = None
    ended: str | None = None


def train(
    config: Config,
    *,
    typed: Sequence[str] = (),
    allow: Sequence[str] = (),
    resume: Path | None = None,
    callbacks: Sequence[Any] = (),
    say: Callable[[str], None] = print,
) -> Result:
    """Trains one run from its start, or from a checkpoint, and tests the best weights.

    Args:
        config: the whole configuration.
        typed: the arguments as they were typed, kept in the run folder.
        allow: further packages that a `_target_` may come from.
        resume: a checkpoint folder to go on from; the run stays in its run folder.
        callbacks: more Lightning callbacks, after the usual ones and before checkpoints are written.
        say: where the plan and the result go.

    Raises:
        UserError: what was given cannot be run.
        NonFinite: a loss, a gradient or a weight was not finite; the checkpoint before that is kept.
        Failed: that, or the run folder can no longer be written.
        Stopped: a signal ended the run, after its checkpoint was written.
    """
    with listening() as stop, ExitStack() as held:
        check_before_building(config)
        folder = run_of(resume) if resume is not None else new_run_folder(config)
        if resume is not None:
            held.enter_context(locked(folder))
        before = files.last(folder / "checkpoints")
        try:
            with stop.unmasked(), _writing(folder):
                return _train(config, typed, allow, resume, folder, callbacks, say, stop, held)
        except Stopped as stopped:
            now = files.last(folder / "checkpoints")
            stopped.in_run(folder, now and now[1], now != before)
            raise


def _train(
    config: Config,
    typed: Sequence[str],
    allow: Sequence[str],
    resume: Path | None,
    folder: Path,
    callbacks: Sequence[Any],
    say: Callable[[str], None],
    stop: StopRequest,
    held: ExitStack,
) -> Result:
    hardware = choose_hardware(config.trainer)
    initial = None if resume is not None or config.init is None else read_initial(config.init)
    kept = folder if resume is not None else initial and initial.run
    parts = build_parts(config, allow, kept_by=kept)
    begins = None if initial is None else initial.put_into(parts.model)
    length = plan_length(config, parts.data)
    backend = resolve_backend(config, hardware)
    scan_typed = any(each.startswith("scan=") for each in typed)
    say(f"\nPolyMamba {'goes on with' if resume else 'starts'} a run")
    with _first_pass(config, lambda: True):
        plan = write_plan(config, parts, length, hardware, backend, folder, scan_typed, begins)
    say(plan + "\n")
    about = {"seed": config.seed, "threads": hardware.threads, "backend": backend[0], "backend_reason": backend[1]}
    about |= {**describe_environment(), "device": hardware.device, "precision": hardware.precision}
    with stop.deferred():
        if resume is None:
            held.enter_context(start(folder, config, typed, about))
            if is_first():
                parts.data.keep(folder / KEPT)
        elif is_first():
            resume = files.settle(resume)
        metrics, ended = _fit_and_test(config, parts, length, hardware, folder, resume, callbacks, stop, say)
    return Result(folder, metrics, parts.task, ended)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """An error within the block that says that a run folder is gone, or that it or its disk takes no more, is told so."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
        inside = bool(error.filename) and Path(os.fsdecode(error.filename)).absolute().is_relative_to(folder.absolute())
        if not full and not inside and folder.is_dir():
            raise
        raise Failed(_cannot_write(error, folder)) from error


def _cannot_write(error: OSError, folder: Path) -> str:
    kept = files.last(folder / "checkpoints")
    if not folder.is_dir():
        return (
            f"Training stopped: its run folder {folder} is gone.\n  start it again, or put the folder back and resume"
        )
    whole = "there is no checkpoint yet" if kept is None else f"the checkpoint of step {kept[1]} is whole"
    return (
        f"Training stopped: its run folder {folder} cannot be written: {error.strerror or error}.\n"
        f"  kept:  {whole}\n"
        f"  do:    make room or make it writable, then {f'resume={folder}' if kept else 'start the run again'}"
    )


def check_before_building(config: Config) -> None:
    """Raises UserError for settings that are wrong whatever the data and the model are; needs no torch."""
    if config.logger.name == "tensorboard":
        require_tensorboard()


def _fit_and_test(
    config: Config,
    parts: Parts,
    length: Length,
    hardware: Hardware,
    folder: Path,
    resume: Path | None,
    more: Sequence[Any],
    stop: StopRequest,
    say: Callable[[str], None],
) -> tuple[dict[str, float], str | None]:
    from ..callbacks import WeightAverage, default_callbacks
    from ..checkpoints.saver import CheckpointFolders, Saver

    io = CheckpointFolders()
    parts.task.optimizer_factory = lambda model: build_optimizer(model, config.optimizer, length.steps)
    saver = Saver(folder / "checkpoints", io, config, parts.task.monitor, stop, parts.description)
    usual = default_callbacks(config, folder)
    ended = None
    with quiet():
        trainer = make_trainer(config, hardware, folder, [saver.before_validation, *usual, *more, saver], io, length)
        with _restoring(resume, saver), _first_pass(config, lambda: saver.started and not saver.stepped):
            trainer.fit(parts.task, **loaders(config, parts), ckpt_path=resume, weights_only=True if resume else None)
        if saver.time_over:
            ended = f"trainer.time_limit={config.trainer.time_limit} ended the run at step {trainer.global_step} of {length.steps}"
            say(f"\n{ended}\n")
        if saver.validation_due:
            trainer.validate(parts.task, datamodule=parts.data, verbose=False)
        best = best_checkpoint(folder)
        parts.task.model.load_state_dict(files.read_weights(best))
        for callback in usual:
            if isinstance(callback, WeightAverage):
                callback.release()
        if config.trainer.pictures:
            draw_scan(parts, folder)
        [metrics] = trainer.test(parts.task, datamodule=parts.data, verbose=False)
    return {name: float(value) for name, value in metrics.items()}, ended


@contextmanager
def _restoring(resume: Path | None, saver: Saver) -> Iterator[None]:
    """What goes wrong within the block before training has begun is said of the checkpoint that it was to begin with."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        if resume is None or saver.started or isinstance(error, UserError):
            raise
        raise UserError(
            f"{resume} does not fit this run", given=" ".join(str(error).split())[:300] or type(error).__name__,
            allowed="what this run has written", do=files.EARLIER,
        ) from error  # fmt: skip


@contextmanager
def _first_pass(config: Config, is_it: Callable[[], bool]) -> Iterator[None]:
    """A model of another package that the data do not fit is the config's mistake, where its first batch shows it."""
    try:
        yield
    except (UserError, Failed, OSError):
        raise
    except Exception as error:
        target = str(config.model.get("_target_"))
        if target.startswith("polymamba.") or not is_it():
            raise
        raise UserError(
            f"{target} does not take this data: {one_line(error)}", given=named_settings(config.model, "model", str(error)),
            do="change the model's settings, or data=<what it takes>",
        ) from error  # fmt: skip


class FixedBatches:
    """The first batches of a loader, the same ones each time."""

    def __init__(self, loader: Iterable[Any], count: int):
        self.batches = list(islice(loader, count))

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)


def loaders(config: Config, parts: Parts) -> dict[str, Any]:
    """What is trained and validated on, as arguments of trainer.fit: the data, or a few fixed batches of it.

    Lightning's own overfit_batches puts another sampler into the loader, which loaders of whole batches cannot take.
    """
    if not config.trainer.overfit:
        return {"datamodule": parts.data}
    fixed = FixedBatches(parts.data.train_dataloader(), config.trainer.overfit)
    return {"train_dataloaders": fixed, "val_dataloaders": fixed}


def best_checkpoint(folder: Path) -> Path:
    """The run's best checkpoint, or its last where no validation chose one."""
    return files.find(folder, ("best", "last"))[0]


def draw_scan(parts: Parts, folder: Path) -> None:
    """Writes scan.png: the paths of the model's scan over its grid of tokens."""
    grid = getattr(parts.model, "grid", None)
    if parts.scan is None or grid is None:
        return
    from ...core import scans

    scans.draw(parts.scan, grid, file=folder / "scan.png")
