"""Random numbers that depend on the seed and the place in training alone, so that a resumed run draws the same ones."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

FETCH, STEP = 0, 1


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
    """Reseeds every global generator before a batch is fetched and again before it is trained on.

    Lightning's checkpoints hold no generator's state, and restoring one at the right moment depends on how many numbers
    iterators, validation and pictures drew in between. With seeds made of (seed, rank, epoch, batch) none of that
    matters: training is the same whether or not it was interrupted, and however often it was validated.

    Args:
        seed: the run's seed.
    """

    def __init__(self, seed: int):
        self.seed = seed
        self._next = (0, 0)
        self._restored = False

    def _fetch(self, trainer: Trainer, epoch: int, batch: int) -> None:
        self._next = (epoch, batch)
        seed_generators(self.seed, trainer.global_rank, epoch, batch, FETCH)

    # A run resumed within an epoch gets no on_train_epoch_start, so its first fetch is seeded at on_train_start.
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._fetch(trainer, *(self._next if self._restored else (trainer.current_epoch, 0)))
        self._restored = False

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._next[0] != trainer.current_epoch or self._next[1] == 0:
            self._fetch(trainer, trainer.current_epoch, 0)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        seed_generators(self.seed, trainer.global_rank, trainer.current_epoch, batch_idx, STEP)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._fetch(trainer, trainer.current_epoch, batch_idx + 1)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self._fetch(trainer, *self._next)

    def state_dict(self) -> dict[str, Any]:
        return {"next": list(self._next)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        epoch, batch = state_dict["next"]
        self._next, self._restored = (epoch, batch), True
