"""Random numbers that depend on the seed and the place in training alone, so that a resumed run draws the same ones."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer


def seed_generators(*numbers: int) -> None:
    """Seeds Python's, NumPy's and PyTorch's global generators (CPU, and GPUs in use) from a few whole numbers >= 0."""
    a, b, c, d, e = map(int, np.random.SeedSequence(numbers).generate_state(5, np.uint32))
    random.seed(a << 32 | b)
    np.random.seed(c)  # noqa: NPY002  libraries such as timm draw from the global generator
    seed = d << 31 | e >> 1
    torch.default_generator.manual_seed(seed)
    # Not torch.manual_seed: without a GPU in use that puts a call and a stack trace aside for later, each time.
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)


class StepSeeds(Callback):
    """Reseeds every global generator before each training batch, from (seed, rank, epoch, batch).

    Lightning's checkpoints hold no generator's state, and restoring one at the right moment depends on how many numbers
    loaders, validation and pictures drew in between. This way dropout, drop path, Mixup and the like are the same
    whether or not the run was interrupted, and however often it was validated. The order of the data and its
    augmentation are the loader's business.

    Args:
        seed: the run's seed, a whole number >= 0.
    """

    def __init__(self, seed: int):
        self.seed = seed

    def on_train_batch_start(self, trainer: Trainer, task: LightningModule, batch: Any, batch_idx: int) -> None:
        seed_generators(self.seed, trainer.global_rank, trainer.current_epoch, batch_idx)
