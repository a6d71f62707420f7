"""What goes wrong in a run, in words that say what is kept and what to do."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ...core.errors import UserError
from ..checkpoints import folder as files
from ..command_line.config import Config
from .run_folder import CHECKPOINTS
from .stop import Failed, Stopped, StopRequest
from .targets import named_settings, one_line

if TYPE_CHECKING:
    from ..checkpoints.saver import Saver


@contextmanager
def explained(folder: Path, stop: StopRequest) -> Iterator[None]:
    """What ends the block, a signal or a folder that can no longer be written, says which checkpoint the run has come to."""
    before = files.last(folder / CHECKPOINTS)
    try:
        with stop.unmasked(), _writing(folder):
            yield
    except Stopped as stopped:
        now = files.last(folder / CHECKPOINTS)
        stopped.in_run(folder, now and now[1], now != before)
        raise


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
        inside = bool(error.filename) and Path(os.fsdecode(error.filename)).absolute().is_relative_to(folder.absolute())
        if not full and not inside and folder.is_dir():
            raise
        raise Failed(_cannot_write(error, folder)) from error


def _cannot_write(error: OSError, folder: Path) -> str:
    if not folder.is_dir():
        return (
            f"Training stopped: its run folder {folder} is gone.\n  start it again, or put the folder back and resume"
        )
    kept = files.last(folder / CHECKPOINTS)
    whole = "there is no checkpoint yet" if kept is None else f"the checkpoint of step {kept[1]} is whole"
    return (
        f"Training stopped: its run folder {folder} cannot be written: {error.strerror or error}.\n"
        f"  kept:  {whole}\n"
        f"  do:    make room or make it writable, then {f'resume={folder}' if kept else 'start the run again'}"
    )


@contextmanager
def restoring(resume: Path | None, saver: Saver) -> Iterator[None]:
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
def first_pass(config: Config, is_it: Callable[[], bool]) -> Iterator[None]:
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
