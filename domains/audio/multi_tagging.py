"""Naming all that is heard in a sound: a question of its own for every class, and the mean average precision (mAP)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn
from torchmetrics.classification import MultilabelAveragePrecision

from ...core.errors import UserError
from ...core.ranges import Rate, Share, Weight, checked
from ..task import Task
from .spectrograms import draw_rows
from .tagging import COLUMNS, binary, mixed, smoothed

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torchmetrics import Metric

FIRST = 8  # sounds in the picture of the first batch


class MultiTagging(Task):
    """Several names a sound.

    Batches are sounds (batch, time) and labels (batch, classes), 0 or 1; the model returns logits (batch, classes).

    Args:
        model: the network. describe: of the data: "classes", "rate", "several".
        mixup: share of the training sounds that others are laid over, whose labels they take a part of.
        label_smoothing: share of the target spread evenly over all classes. auxiliary: see Task.
    """

    monitor: ClassVar[tuple[str, str]] = ("val/mAP", "max")
    exact_inputs: ClassVar[bool] = True

    @checked(group="task")
    def __init__(
        self,
        model: nn.Module,
        describe: Mapping[str, Any],
        mixup: Share = 0.5,
        label_smoothing: Rate = 0.0,
        auxiliary: Weight = 1.0,
    ):
        super().__init__(model, describe, auxiliary)
        if not self.describe.get("several"):
            given = f"data={describe.get('name')}"
            raise UserError("these sounds have one name each, or none", given=given, do="task=tagging")
        self.mixup, self.label_smoothing = mixup, label_smoothing
        count = len(self.describe["classes"])
        self.metrics = nn.ModuleDict({stage: MultilabelAveragePrecision(count) for stage in ("val", "test")})

    def step(self, batch: tuple[Tensor, Tensor], stage: str) -> tuple[Tensor, dict[str, Tensor | Metric]]:
        sounds, labels = batch
        if stage == "train":
            sounds, labels = mixed(sounds, labels, self.mixup)
            return binary(self.model(sounds).float(), smoothed(labels, self.label_smoothing)), {}
        logits = self.model(sounds).float()
        self.metrics[stage].update(logits, labels.int())
        return binary(logits, labels), {"mAP": self.metrics[stage]}

    def pictures(self, stage: str, batch: Any = None) -> Mapping[str, Figure | str]:
        if stage != "train":
            return {}
        names, (sounds, labels) = self.describe["classes"], batch
        named = [
            (", ".join(names[n] for n in each.nonzero().flatten().tolist()) or "nothing", sound)
            for each, sound in zip(labels[:FIRST], sounds, strict=False)
        ]
        rows = [named[start : start + COLUMNS] for start in range(0, len(named), COLUMNS)]
        heading = f"First training batch: {len(named)} of {len(sounds)} sounds"
        return {"first_batch": draw_rows(rows, self.describe["rate"], heading)}
