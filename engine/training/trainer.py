"""Lightning's Trainer from the settings, without its advertisements and without its handling of signals.

Lightning puts a handler of its own around the one it finds, which takes part in a collective wherever the process happens to be,
and ends the run with a SystemExit of code 0 in the middle of accumulated gradients. Here stop.py handles signals.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import UserError
from ..command_line.config import Config
from .hardware import LIGHTNING_PRECISION, Hardware

if TYPE_CHECKING:
    from .assembly import Parts
    from .plan import Length


def make_trainer(
    config: Config, hardware: Hardware, folder: Path, callbacks: Sequence[Any] = (), io: Any = None, length: Length | None = None
) -> Any:  # fmt: skip
    """A Trainer for training, or for evaluation where `length` is None."""
    from lightning.pytorch import Trainer
    from lightning.pytorch.plugins import HalfPrecision
    from lightning.pytorch.plugins.environments import SLURMEnvironment

    class TrainerWithoutSignals(Trainer):
        received_sigterm = False  # no reason for Lightning to end anything

    class BFloat16(HalfPrecision):
        def convert_module(self, module: Any) -> Any:
            self.exact_inputs = module.exact_inputs
            return super().convert_module(module)

        def convert_input(self, data: Any) -> Any:
            return data if self.exact_inputs else super().convert_input(data)

    settings = config.trainer
    every = {"check_val_every_n_epoch": settings.val_every}
    if settings.val_every_steps is not None:
        every = {"check_val_every_n_epoch": None, "val_check_interval": settings.val_every_steps}
    plugins, precision = [] if io is None else [io], LIGHTNING_PRECISION[hardware.precision]
    if hardware.precision == "bf16":
        plugins.append(BFloat16(precision))
        precision = None
    if SLURMEnvironment.detect():
        plugins.append(SLURMEnvironment(auto_requeue=False))
    return TrainerWithoutSignals(
        accelerator="gpu" if hardware.device == "cuda" else "cpu",
        devices=settings.devices,
        precision=precision,
        logger=_logger(config, folder) if length is not None else False,
        callbacks=list(callbacks),
        plugins=plugins,
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


def loaders(config: Config, parts: Parts) -> dict[str, Any]:
    """What is trained and validated on, as arguments of trainer.fit: the data, or a few fixed batches of it.

    Lightning's own overfit_batches puts another sampler into the loader, which loaders of whole batches cannot take.
    """
    if not config.trainer.overfit:
        return {"datamodule": parts.data}
    from torch.utils.data import DataLoader

    batches = list(islice(parts.data.train_dataloader(), config.trainer.overfit))
    fixed = DataLoader(batches, batch_size=None, collate_fn=lambda batch: batch)
    return {"train_dataloaders": fixed, "val_dataloaders": fixed}


def check_logger(config: Config) -> None:
    """Raises UserError where TensorBoard is asked for and not installed; nothing is loaded to find out."""
    from importlib.util import find_spec

    if config.logger.name == "tensorboard" and find_spec("tensorboard") is None:
        raise UserError(
            "TensorBoard is not installed", given="logger=tensorboard", allowed="csv, or tensorboard once it is installed",
            do="pip install tensorboard",
        )  # fmt: skip


def _logger(config: Config, folder: Path) -> Any:
    """TensorBoard's logger where it is asked for, otherwise False: metrics.csv needs none."""
    if config.logger.name != "tensorboard":
        return False
    from lightning.pytorch.loggers import TensorBoardLogger

    check_logger(config)
    return TensorBoardLogger(folder, name="tensorboard", version="")


@contextmanager
def quiet() -> Iterator[None]:
    """Silences Lightning's information lines, tips and hints about worker processes within the block."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "lightning")]
    levels = [each.level for each in loggers]
    with warnings.catch_warnings():
        for about in (
            "The '.*' does not have many workers",
            "Checkpoint directory",
            ".*litlogger.*",
            ".*isinstance.treespec.*",
        ):
            warnings.filterwarnings("ignore", message=about)
        for each in loggers:
            each.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for each, level in zip(loggers, levels, strict=True):
                each.setLevel(level)
