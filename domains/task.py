"""The one LightningModule base: a task takes a built model and knows its loss, its metrics and its pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torchmetrics import Metric

from ..core.moe import auxiliary_loss

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OptimizerFactory = Callable[[nn.Module], tuple[torch.optim.Optimizer, Any]]


class Task(LightningModule):
    """What every domain's task shares: the three steps, logging, the optimizer hook and gradient clipping.

    A subclass writes `step`, names its main metric in `monitor`, and may draw pictures. Metrics are logged as
    `train/…` (loggers), `train/…_epoch` (means over an epoch), `val/…` and `test/…`. train/loss is what is minimised; where
    the model has a part of its own in it, train/auxiliary says how much, and val/loss and test/loss are without it.

    Args:
        model: the network; an ordinary module that knows nothing of Lightning.
        describe: what the data module says of its data (classes, mean, std, …).
        auxiliary: weight of what the model itself adds to the loss in training: its `auxiliary_loss()`, or without such a
            method the balance of its mixtures of experts.

    Attributes:
        monitor: name of the metric that chooses the best weights, and whether its "max" or "min" is best.
        exact_inputs: a batch stays in float32 under trainer.precision=bf16, and the model rounds what it makes of it:
            the 8 bits of a bfloat16 drown what lies 50 dB below the rest, which a logarithm would still hear.
        optimizer_factory: builds (optimizer, schedule or None) from the model; the schedule moves once an optimizer
            step. Set before training; evaluation does without.
        gradient_norm: norm of the last gradient before clipping, a scalar on the model's device; None before the first.
    """

    monitor: ClassVar[tuple[str, str]] = ("val/loss", "min")
    exact_inputs: ClassVar[bool] = False

    def __init__(self, model: nn.Module, describe: Mapping[str, Any], auxiliary: float = 1.0):
        super().__init__()
        self.model, self.auxiliary = model, auxiliary
        self.describe = dict(describe)
        self.optimizer_factory: OptimizerFactory | None = None
        self.gradient_norm: Tensor | None = None
        self._epoch_sums: dict[str, Tensor] = {}
        self._epoch_samples = 0

    @classmethod
    def asks(cls, describe: Mapping[str, Any], settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """What a model for this task is told other than the data say, such as the number of values that it answers.

        Args:
            describe: what the data say.
            settings: the task's own.
        """
        return {}

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.model(*inputs)

    def inputs(self, batch: Any) -> tuple:
        """What the model is called with: the first element of a batch."""
        return (batch[0] if isinstance(batch, list | tuple) else batch,)

    def step(self, batch: Any, stage: str) -> tuple[Tensor, dict[str, Tensor | Metric]]:
        """Runs the model on a batch.

        Args:
            batch: what the loader gave.
            stage: "train", "val" or "test".

        Returns:
            the loss (scalar, the batch's mean) and what else to log: scalars (means over the batch) or metric objects
            that have been updated with this batch. For "train" scalars only.
        """
        raise NotImplementedError

    def loss_to_minimise(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """A training `step` with what the model itself adds to the loss, whose part is logged as "auxiliary"."""
        loss, metrics = self.step(batch, "train")
        more = getattr(self.model, "auxiliary_loss", partial(auxiliary_loss, self.model))()
        if more is None:
            return loss, metrics
        more = self.auxiliary * more
        return loss + more, {**metrics, "auxiliary": more.detach()}

    def samples(self, batch: Any) -> int:
        """Number of samples in a batch: the first dimension of its first tensor."""
        if isinstance(batch, Mapping):
            batch = list(batch.values())
        return len(batch) if isinstance(batch, Tensor) else self.samples(batch[0])

    def tokens(self, batch: Any) -> int | None:
        """Number of tokens in a batch: samples times `model.tokens`; None where the model has no such number."""
        tokens = getattr(self.model, "tokens", None)
        return self.samples(batch) * tokens if isinstance(tokens, int) else None

    def pictures(self, stage: str, batch: Any = None) -> Mapping[str, Figure | str]:
        """What is worth looking at, by the name of its file: a figure becomes <name>.png, a text is appended to <name>.txt.

        Args:
            stage: "train" (a little after training has begun), "val" (after each validation) or "test" (after a test).
            batch: for "train" the first training batch.
        """
        return {}

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        loss, metrics = self.loss_to_minimise(batch)
        scalars = {"train/loss": loss.detach(), **{f"train/{name}": value for name, value in metrics.items()}}
        samples = self.samples(batch)
        self._epoch_samples += samples
        for name, value in scalars.items():
            self._epoch_sums[name] = self._epoch_sums.get(name, 0) + value.float() * samples
        # Lightning's logging takes milliseconds a call; it is asked only where a logger is going to listen.
        if self.trainer.loggers and (self.trainer.global_step + 1) % self.trainer.log_every_n_steps == 0:
            self.log_dict(scalars, on_step=True, on_epoch=False, batch_size=samples)
        # Lightning divides outputs["loss"] by the number of accumulated batches; callbacks read the true loss here.
        return {"loss": loss, "scalars": scalars}

    def on_train_epoch_start(self) -> None:
        self._epoch_sums, self._epoch_samples = {}, 0

    def on_train_epoch_end(self) -> None:
        if self._epoch_samples:
            means = {f"{name}_epoch": total / self._epoch_samples for name, total in self._epoch_sums.items()}
            self.log_dict(means, sync_dist=True)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self._evaluate(batch, "val")

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self._evaluate(batch, "test")

    def _evaluate(self, batch: Any, stage: str) -> None:
        loss, metrics = self.step(batch, stage)
        values = {f"{stage}/loss": loss, **{f"{stage}/{name}": value for name, value in metrics.items()}}
        self.log_dict(values, on_step=False, on_epoch=True, batch_size=self.samples(batch), sync_dist=True)

    def learning(self) -> nn.Module:
        """What the optimizer moves: the model, or with it parts of the task that learn too."""
        return self.model

    def configure_optimizers(self) -> dict[str, Any]:
        if self.optimizer_factory is None:
            raise RuntimeError("set task.optimizer_factory before training")
        optimizer, schedule = self.optimizer_factory(self.learning())
        if schedule is None:
            return {"optimizer": optimizer}
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step", "frequency": 1}}

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        # Not Lightning's own: that one computes the norm a second time, and refuses fused optimizers under autocast.
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if not gradient_clip_val or not parameters:
            return
        if gradient_clip_algorithm == "value":
            nn.utils.clip_grad_value_(parameters, gradient_clip_val)
            return
        norm = self.gradient_norm
        if norm is None:
            norm = nn.utils.get_total_norm([p.grad for p in parameters])
        nn.utils.clip_grads_with_norm_(parameters, gradient_clip_val, norm)
