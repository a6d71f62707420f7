"""Lightning's Trainer from the typed trainer settings, without its advertisements."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...core.errors import UserError
from ..command_line.config import Config
from .hardware import LIGHTNING_PRECISION, Hardware
from .plan import Length


def make_trainer(
    config: Config,
    hardware: Hardware,
    folder: Path,
    callbacks: Sequence[Any] = (),
    io: Any = None,
    length: Length | None = None,
) -> Any:
    """A Trainer for training, or for evaluation where `length` is None."""
    from lightning.pytorch import Trainer

    settings = config.trainer
    every = {"check_val_every_n_epoch": settings.val_every}
    if settings.val_every_steps is not None:
        every = {"check_val_every_n_epoch": None, "val_check_interval": settings.val_every_steps}
    trainer = Trainer(
        accelerator="gpu" if hardware.device == "cuda" else "cpu",
        devices=settings.devices,
        precision=LIGHTNING_PRECISION[hardware.precision],
        logger=make_logger(config, folder) if length is not None else False,
        callbacks=list(callbacks),
        plugins=[io] if io is not None else None,
        max_epochs=settings.epochs,
        max_steps=length.steps if length is not None else -1,
        limit_train_batches=settings.limit_train,
        limit_val_batches=settings.limit_val,
        limit_test_batches=settings.limit_test,
        accumulate_grad_batches=settings.accumulate,
        gradient_clip_val=settings.gradient_clip,
        deterministic=settings.deterministic or None,
        log_every_n_steps=settings.log_every,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **every,
    )
    trainer._signal_connector = NoSignals()
    return trainer


class NoSignals:
    """Stands in for Lightning's handling of signals, which is engine/training/stop.py's here.

    Lightning puts a handler of its own around the one it finds, and ends the run with SIGTERMException, a SystemExit with
    code 0, in the middle of accumulated gradients or after a validation: without a checkpoint and without a word.
    """

    received_sigterm = False

    def register_signal_handlers(self) -> None:
        """Registers none."""

    def teardown(self) -> None:
        """There are none to take back."""


def make_logger(config: Config, folder: Path) -> Any:
    """TensorBoard's logger where it is asked for, otherwise False: metrics.csv needs none.

    Raises:
        UserError: TensorBoard is not installed.
    """
    if config.logger.name != "tensorboard":
        return False
    require_tensorboard()
    from lightning.pytorch.loggers import TensorBoardLogger

    return TensorBoardLogger(folder, name="tensorboard", version="")


def require_tensorboard() -> None:
    """Raises UserError where TensorBoard is not installed."""
    from importlib.util import find_spec

    if find_spec("tensorboard") is None:
        raise UserError(
            "TensorBoard is not installed", given="logger=tensorboard", allowed="csv, or tensorboard once it is installed",
            do="pip install tensorboard",
        )  # fmt: skip


@contextmanager
def quiet() -> Iterator[None]:
    """Silences Lightning's information lines, tips and hints about worker processes within the block."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "lightning")]
    levels = [each.level for each in loggers]
    with warnings.catch_warnings():
        for message in (
            "The '.*' does not have many workers",
            "Checkpoint directory",
            ".*litlogger.*",
            ".*isinstance.treespec.*",
        ):
            warnings.filterwarnings("ignore", message=message)
        for each in loggers:
            each.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for each, level in zip(loggers, levels, strict=True):
                each.setLevel(level)
