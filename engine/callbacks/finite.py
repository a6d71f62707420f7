"""Stops a run before what is not finite reaches the weights, and before weights that are not finite reach the disk.

By hand, because Lightning trains on with NaN; its detect_anomaly is for debugging and slow.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite, nan
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from ..training.stop import Failed
from .ema import published_weights

NAMES_SHOWN = 5
ADVICE = """
  try: a smaller learning rate (optimizer.lr=…), a longer warm-up (optimizer.warmup=…), clipping
       (trainer.gradient_clip=1.0), precision (trainer.precision=32); first_batch.png shows the input"""


class NonFinite(Failed):
    """A loss, a gradient or a weight was NaN or infinite.

    Attributes:
        step: optimizer steps done: before the bad one for "loss" and "gradient", with it for the other quantities.
        loss: the step's loss, mean over its batches; of "validation loss", that; of "weights", NaN.
        parameters: names of the parameters whose gradients (of "weights": that themselves) are not finite, in the model's order.
        quantity: "loss", "gradient", "weights" or "validation loss".
    """

    def __init__(self, step: int, loss: float, parameters: list[str], quantity: str | None = None):
        self.step, self.loss, self.parameters = step, loss, parameters
        self.quantity = quantity or ("gradient" if isfinite(loss) else "loss")
        before = f"Training stopped at step {step + 1}, before the weights were changed"
        what = {
            "loss": f"{before}: the loss is {loss}.",
            "gradient": f"{before}: the gradient is not finite (the loss is {loss:.4g}).",
            "weights": f"Training stopped after step {step}, before a checkpoint was written: weights are not finite.",
            "validation loss": f"Training stopped after step {step}: the validation loss is {loss}.",
        }[self.quantity]
        more = f" and {len(parameters) - NAMES_SHOWN} more" if len(parameters) > NAMES_SHOWN else ""
        kind = "weights" if quantity == "weights" else "gradients"
        names = f"\n  {kind} that are not finite: {', '.join(parameters[:NAMES_SHOWN])}{more}" if parameters else ""
        super().__init__(what + names + ADVICE)


class FiniteGuard(Callback):
    """Checks the loss and the gradient of every optimizer step before the step is made, and raises `NonFinite`.

    So it does where weights that a checkpoint would hold (trained and averaged ones) or a validation's loss are not finite:
    no later step would find out about the last one. Lightning itself trains on with NaN. The gradient's norm is left in
    `task.gradient_norm`, for clipping and logs.
    With a fused optimizer on a GPU nothing waits for the device: the optimizer is told on the device to leave the
    weights alone from the first bad step on, and the host looks every few steps. Under a gradient scaler (float16) an
    infinite gradient is the scaler's business; only the loss is checked.

    Args:
        every: with a fused optimizer on one of `devices`, steps between two looks.
        devices: device types where waiting for the device costs time.
    """

    def __init__(self, every: int = 20, devices: tuple[str, ...] = ("cuda",)):
        self.every, self.devices = every, devices
        self._loss: Tensor | None = None
        self._names: list[str] = []
        self._bad: Tensor | None = None
        self._record: Tensor | None = None

    def on_before_backward(self, trainer: Trainer, task: LightningModule, loss: Tensor) -> None:
        loss = loss.detach().float()
        self._loss = loss if self._loss is None else self._loss + loss

    def on_before_optimizer_step(self, trainer: Trainer, task: LightningModule, optimizer: Optimizer) -> None:
        loss, self._loss = self._loss, None
        named = [(name, p.grad) for name, p in task.named_parameters() if p.grad is not None]
        if loss is None or not named:
            return
        self._names = [name for name, _ in named]
        norms = torch.stack([n.float().to(loss.device) for n in torch._foreach_norm([grad for _, grad in named])])
        task.gradient_norm = norm = torch.linalg.vector_norm(norms)
        scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
        finite = torch.isfinite(loss) if scaled else torch.isfinite(loss) & torch.isfinite(norm)
        # Every rank must stop, also where only one saw a bad loss.
        bad = trainer.strategy.reduce((~finite).float(), reduce_op="max")
        step = torch.full_like(loss, trainer.global_step)
        self._note(bad, torch.cat([torch.stack([step, loss, norm]), norms]))
        if scaled or not self._can_skip_on_device(optimizer, loss.device):
            self.look()
            return
        optimizer.grad_scale, optimizer.found_inf = None, self._bad
        if (trainer.global_step + 1) % self.every == 0:
            self.look()

    def on_validation_start(self, trainer: Trainer, task: LightningModule) -> None:
        self.look()

    on_train_end = on_validation_start

    def on_save_checkpoint(self, trainer: Trainer, task: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.look()
        published = published_weights(trainer, task)
        learnt = {f"model.{name}": published[name] for name, _ in task.model.named_parameters() if name in published}
        for found in (dict(task.named_parameters()), learnt):
            if bad := not_finite(found):
                raise NonFinite(trainer.global_step, nan, bad, "weights")

    def on_validation_end(self, trainer: Trainer, task: LightningModule) -> None:
        loss = trainer.callback_metrics.get("val/loss")
        if loss is not None and not trainer.sanity_checking and not isfinite(float(loss)):
            raise NonFinite(trainer.global_step, float(loss), [], "validation loss")

    def look(self) -> None:
        """Waits for the device and raises `NonFinite` where a step since the last look was bad."""
        if self._bad is None or not bool(self._bad):
            return
        step, loss, _, *norms = self._record.tolist()
        self._bad = self._record = None
        raise NonFinite(int(step), loss, [n for n, norm in zip(self._names, norms, strict=True) if not isfinite(norm)])

    def _note(self, bad: Tensor, record: Tensor) -> None:
        if self._bad is None:
            self._bad, self._record = bad, record
            return
        # The first bad step is the one worth telling about.
        self._record = torch.where(self._bad > 0, self._record, record)
        self._bad = torch.maximum(self._bad, bad)

    def _can_skip_on_device(self, optimizer: Optimizer, device: torch.device) -> bool:
        fused = all(group.get("fused") for group in optimizer.param_groups)
        return device.type in self.devices and fused and getattr(optimizer, "_step_supports_amp_scaling", False)


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that hold a NaN or an infinity."""
    floats = {name: each.detach() for name, each in tensors.items() if each.is_floating_point() and each.numel()}
    if not floats:
        return []
    # The largest magnitude, not the norm: squares of large finite weights overflow.
    largest = torch.stack([each.float().cpu() for each in torch._foreach_norm(list(floats.values()), float("inf"))])
    return [name for name, fine in zip(floats, torch.isfinite(largest).tolist(), strict=True) if not fine]
