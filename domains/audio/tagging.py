"""Naming sounds: cross-entropy, accuracy, the sounds that went most wrong and what is taken for what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...core.errors import UserError
from ...core.pictures import INK
from ...core.ranges import Count, Rate, Share, Weight, checked
from ..classification import Classifying, share_right
from .spectrograms import draw_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torchmetrics import Metric

COLUMNS = 4  # of sounds in a picture


def mixed(sounds: Tensor, targets: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Sounds (batch, time) of which a share has another of the batch laid over it, and targets (batch, classes) mixed likewise."""
    if not share:
        return sounds, targets
    weights = torch.distributions.Beta(10.0, 10.0).sample((len(sounds), 1)).to(sounds.device)  # about half, as in AST
    weights = torch.where(torch.rand_like(weights) < share, weights, torch.ones_like(weights))
    others = torch.randperm(len(sounds), device=sounds.device)
    return tuple(weights * each + (1 - weights) * each[others] for each in (sounds, targets))


def smoothed(targets: Tensor, smoothing: float) -> Tensor:
    """Targets (batch, classes) with a share spread evenly over all classes."""
    return (1 - smoothing) * targets + smoothing / targets.shape[1]


def binary(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of every class for itself, summed over classes: (batch, classes) to a scalar, the batch's mean."""
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(1).mean()


LOSSES = {"cross_entropy": F.cross_entropy, "bce": binary}


class Tagging(Classifying):
    """One label a sound.

    Batches are sounds (batch, time) and labels (batch) int64; the model returns logits (batch, classes).

    Args:
        model: the network.
        describe: of the data: "classes", "rate".
        loss: "cross_entropy", or "bce": every class a question of its own (AST, arXiv 2104.01778).
        mixup: share of the training sounds that others are laid over, of which they take a part of the label (arXiv 1710.09412).
        label_smoothing, worst, auxiliary: see Classifying.
    """

    exact_inputs: ClassVar[bool] = True

    @checked(group="task")
    def __init__(
        self,
        model: nn.Module,
        describe: Mapping[str, Any],
        loss: Literal["cross_entropy", "bce"] = "cross_entropy",
        mixup: Share = 0.0,
        label_smoothing: Rate = 0.1,
        worst: Count = 8,
        auxiliary: Weight = 1.0,
    ):
        if "classes" not in describe:
            raise UserError("these data have no names", given=f"data={describe.get('name')}", do="task=separation")
        if describe.get("several"):
            raise UserError(
                "these sounds have several names", given=f"data={describe['name']}", do="task=multi_tagging"
            )
        super().__init__(model, describe, label_smoothing, worst, auxiliary)
        self.loss, self.mixup = LOSSES[loss], mixup
        self.taken = torch.zeros(self.num_classes, self.num_classes, dtype=torch.long)

    def step(self, batch: tuple[Tensor, Tensor], stage: str) -> tuple[Tensor, dict[str, Tensor | Metric]]:
        if stage == "train":
            labels = self.labels(batch)
            sounds, targets = mixed(batch[0], F.one_hot(labels, self.num_classes).float(), self.mixup)
            logits = self.model(sounds).float()
            return self.loss(logits, smoothed(targets, self.label_smoothing)), {"accuracy": share_right(logits, labels)}
        if stage == "test":
            said, labels = self.model(batch[0]).argmax(1).cpu(), batch[1].cpu()
            self.taken += torch.bincount(labels * self.num_classes + said, minlength=self.num_classes**2).view_as(
                self.taken
            )
        return super().step(batch, stage)

    def on_test_start(self) -> None:
        super().on_test_start()
        self.taken.zero_()

    def kept(self, batch: tuple[Tensor, Tensor], positions: Tensor) -> Tensor:
        return batch[0][positions].cpu()

    def pictures(self, stage: str, batch: Any = None) -> Mapping[str, Figure | str]:
        more = {"confusion": self.draw_confusion()} if stage == "test" and self.taken.any() else {}
        return {**super().pictures(stage, batch), **more}

    def draw_batch(self, batch: tuple[Tensor, Tensor]) -> Figure:
        """Draws the first sounds of a training batch under their names."""
        named = [(self.name_of(int(label)), sound) for sound, label in zip(batch[0][:8], batch[1][:8], strict=True)]
        rows = [named[start : start + COLUMNS] for start in range(0, len(named), COLUMNS)]
        return draw_rows(rows, self.describe["rate"], f"First training batch: {len(named)} of {len(batch[0])} sounds")

    def draw_worst(self) -> Figure:
        """Draws the test sounds with the highest loss: class, prediction, confidence."""
        named = [
            (f"is {self.name_of(e['true'])}, said {self.name_of(e['predicted'])} ({e['confidence']:.0%})", e["sample"])
            for e in self.worst.entries
        ]
        rows = [named[start : start + COLUMNS] for start in range(0, len(named), COLUMNS)]
        return draw_rows(rows, self.describe["rate"], f"Worst of {self.worst.seen:,} test sounds")

    def draw_confusion(self) -> Figure:
        """Draws how often each class was taken for each."""
        from matplotlib.figure import Figure

        side = min(12.0, max(4.0, 0.4 * self.num_classes + 1.5))
        figure = Figure(figsize=(side, side), dpi=110, facecolor="white", layout="constrained")
        axis, names = figure.subplots(), [self.name_of(number) for number in range(self.num_classes)]
        shares = self.taken / self.taken.sum(1, keepdim=True).clamp(min=1)
        axis.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
        for true, said in self.taken.nonzero().tolist():
            colour = "white" if shares[true, said] > 0.5 else INK
            axis.text(said, true, int(self.taken[true, said]), ha="center", va="center", fontsize=7, color=colour)
        axis.set_xticks(range(self.num_classes), names, rotation=90, fontsize=7)
        axis.set_yticks(range(self.num_classes), names, fontsize=7)
        axis.set_xlabel("said", fontsize=8)
        axis.set_ylabel("is", fontsize=8)
        axis.set_title(f"{int(self.taken.diagonal().sum())} of {int(self.taken.sum())} test sounds right", fontsize=9)
        return figure
