"""Exponential moving average of the weights: what is validated, tested and published in place of the last weights.

timm averages. Lending and resuming are by hand: Lightning's WeightAveraging writes the average over the trained weights at the end,
so that no run can be trained longer, and leaves the two exchanged where a validation breaks off.
"""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn

from ...core.errors import UserError


class WeightAverage(Callback):
    """Averages the weights after every optimizer step, and lends the average to validation and test.

    While training the task holds the weights that are trained; the average is in `averaged` and in the checkpoint.

    Args:
        decay: share of the old average that one step keeps, above 0 and below 1.
        warmup: start with a small decay, 1 - (1 + step)^(-2/3), until it reaches `decay`; the first
            weights would linger otherwise.
    """

    def __init__(self, decay: float, warmup: bool = True):
        if not 0 < decay < 1:
            raise UserError(
                "trainer.ema is out of range", given=decay, allowed="above 0 and below 1", do="trainer.ema=0.999"
            )
        self.decay, self.warmup = decay, warmup
        self._average: ModelEmaV3 | None = None
        self._trained: nn.Module | None = None
        self._restored: dict[str, Tensor] | None = None
        self._updates = 0
        self._step = 0

    @property
    def averaged(self) -> nn.Module | None:
        """The model with averaged weights; None before training has started."""
        return None if self._average is None else self._average.module

    @property
    def published(self) -> nn.Module | None:
        """The averaged model once a step is in it; None before."""
        return self.averaged if self._updates else None

    def release(self) -> None:
        """Forgets the average: from now on the task's own weights are tested (they were loaded from a file, say)."""
        self._average = self._restored = None
        self._updates = 0

    def on_fit_start(self, trainer: Trainer, task: LightningModule) -> None:
        self._build(task)

    def on_train_start(self, trainer: Trainer, task: LightningModule) -> None:
        self._step = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, task: LightningModule, *_: Any) -> None:
        if trainer.global_step != self._step:
            self._step = trainer.global_step
            self._updates += 1
            self._average.update(task.model, self._updates)

    def on_validation_start(self, trainer: Trainer, task: LightningModule) -> None:
        if self._restored is not None:
            self._build(task)
        if self.published is not None:
            self._trained, task.model = task.model, self.published

    def on_validation_end(self, trainer: Trainer, task: LightningModule) -> None:
        if self._trained is not None:
            task.model, self._trained = self._trained, None

    on_test_start, on_test_end = on_validation_start, on_validation_end

    def on_exception(self, trainer: Trainer, task: LightningModule, exception: BaseException) -> None:
        self.on_validation_end(trainer, task)

    def state_dict(self) -> dict[str, Any]:
        weights = self._restored if self._average is None else self._average.module.state_dict()
        return {} if weights is None else {"updates": self._updates, "weights": dict(weights)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict:
            self._updates, self._restored = state_dict["updates"], state_dict["weights"]
            self._average = None

    def _build(self, task: LightningModule) -> None:
        if self._average is None:
            self._average = ModelEmaV3(task.model, decay=self.decay, use_warmup=self.warmup)
        if self._restored is not None:
            self._average.module.load_state_dict(self._restored)
            self._restored = None


def published_weights(trainer: Trainer, task: LightningModule) -> dict[str, Tensor]:
    """The weights that validation measured: the average where there is one, otherwise the task's own."""
    averages = (each.published for each in trainer.callbacks if isinstance(each, WeightAverage))
    return next((each for each in averages if each is not None), task.model).state_dict()
