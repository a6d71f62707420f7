"""What every classification shares: loss, label smoothing, accuracy, the samples that went most wrong, tables of classes."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from .task import Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Classifying(Task):
    """One label a sample; the model returns logits (batch, classes).

    A subclass says what of a sample is kept to be drawn (`kept`), and draws a training batch (`draw_batch`) and the worst
    samples of a test (`draw_worst`); it may log more metrics (`more_metrics`).

    Args:
        model: the network.
        describe: of the data: "num_classes" or "classes".
        label_smoothing: share of the target spread evenly over all classes, from 0 to below 1 (Szegedy et al. 2016).
        worst: number of test samples in the picture of the worst predictions; 0: none.
        auxiliary: weight of what the model itself wants added to the loss (a mixture of experts' balance).
    """

    monitor: ClassVar[tuple[str, str]] = ("val/accuracy", "max")

    def __init__(
        self, model: nn.Module, describe: Mapping[str, Any], label_smoothing: float, worst: int, auxiliary: float
    ):
        super().__init__(model, describe, auxiliary)
        self.num_classes = self.describe.get("num_classes") or len(self.describe["classes"])
        self.label_smoothing, self.worst = label_smoothing, Worst(worst)
        self.metrics = nn.ModuleDict({stage: self._new_metrics() for stage in ("val", "test")})

    def _new_metrics(self) -> nn.ModuleDict:
        accuracy = MulticlassAccuracy(self.num_classes, average="micro", validate_args=False)
        return nn.ModuleDict({"accuracy": accuracy, **self.more_metrics()})

    def more_metrics(self) -> dict[str, Metric]:
        """Metrics beside the accuracy, by name."""
        return {}

    def labels(self, batch: Any) -> Tensor:
        """(batch,) int64."""
        return batch[1]

    def step(self, batch: Any, stage: str) -> tuple[Tensor, dict[str, Tensor | Metric]]:
        logits, labels = self.model(*self.inputs(batch)).float(), self.labels(batch)
        if stage == "train":
            loss = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
            return loss, {"accuracy": share_right(logits, labels)}
        losses = F.cross_entropy(logits, labels, reduction="none")
        for metric in self.metrics[stage].values():
            metric.update(logits, labels)
        if stage == "test":
            self.worst.add(losses, labels, logits, lambda positions: self.kept(batch, positions))
        return losses.mean(), dict(self.metrics[stage])

    def on_test_start(self) -> None:
        self.worst.clear()

    def pictures(self, stage: str, batch: Any = None) -> Mapping[str, Figure | str]:
        if stage == "train":
            return {"first_batch": self.draw_batch(batch)}
        return {"worst_predictions": self.draw_worst()} if stage == "test" and self.worst.entries else {}

    def kept(self, batch: Any, positions: Tensor) -> Sequence[Any]:
        """Of the samples of a batch at these positions, (count,), what `draw_worst` needs."""
        raise NotImplementedError

    def draw_batch(self, batch: Any) -> Figure:
        """Draws a training batch as the model sees it."""
        raise NotImplementedError

    def draw_worst(self) -> Figure:
        """Draws `worst.entries`."""
        raise NotImplementedError

    def name_of(self, label: int) -> str:
        """The name of a class."""
        names = self.describe.get("classes")
        return str(names[label]) if names else f"class {label}"


def share_right(logits: Tensor, labels: Tensor) -> Tensor:
    """Share of the samples whose highest logit, of (batch, classes), is their label's, (batch,)."""
    return (logits.detach().argmax(1) == labels).float().mean()


class Worst:
    """Keeps the samples with the highest loss seen since the last `clear`.

    Args:
        count: how many.

    Attributes:
        seen: samples shown since the last `clear`.
        entries: dicts of "loss", "sample" (what was kept of it), "true", "predicted", "confidence" (in the predicted class),
            "true_confidence"; highest loss first.
    """

    def __init__(self, count: int):
        self.count = count
        self.clear()

    def clear(self) -> None:
        """Forgets everything."""
        self.seen = 0
        self.entries: list[dict[str, Any]] = []

    def add(self, losses: Tensor, labels: Tensor, logits: Tensor, kept: Callable[[Tensor], Sequence[Any]]) -> None:
        """Takes a batch: losses, labels (batch,), logits (batch, classes); `kept` gives what is kept of some positions."""
        self.seen += len(losses)
        if self.count == 0:
            return
        losses = losses.nan_to_num(nan=float("inf"))
        chosen = losses.topk(min(self.count, len(losses))).indices
        probabilities = logits[chosen].softmax(1)
        confidence, predicted = probabilities.max(1)
        true_confidence = probabilities.gather(1, labels[chosen, None]).squeeze(1)
        names = ("loss", "true", "predicted", "confidence", "true_confidence")
        columns = [each.tolist() for each in (losses[chosen], labels[chosen], predicted, confidence, true_confidence)]
        for sample, *numbers in zip(kept(chosen), *columns, strict=True):
            self.entries.append({"sample": sample, **dict(zip(names, numbers, strict=True))})
        self.entries = sorted(self.entries, key=lambda entry: -entry["loss"])[: self.count]


class Classified(NamedTuple):
    """A sample's likeliest classes, the likeliest first: their names and the model's confidence in them, 0 to 1."""

    names: list[str]
    confidences: list[float]

    @property
    def line(self) -> str:
        """All of them in a line."""
        return "   ".join(f"{name} {confidence:.1%}" for name, confidence in zip(*self, strict=True))


def likeliest(logits: Tensor, names: Sequence[Any] | None, top: int) -> list[Classified]:
    """The likeliest classes of each row of logits (batch, classes); without names, numbers."""
    confidences, labels = logits.float().softmax(1).topk(min(top, logits.shape[1]), dim=1)
    rows = zip(labels.tolist(), confidences.tolist(), strict=True)
    return [Classified([str(names[label] if names else label) for label in row], sure) for row, sure in rows]


def write_table(path: Path, what: str, rows: Sequence[tuple[Any, Classified]]) -> None:
    """Writes a CSV: a row a sample, named in the column `what`, with its class and confidence, then the next likely ones."""
    ranks = range(2, len(rows[0][1].names) + 1)
    temporary = path.with_name(f".{path.name}.tmp")
    with open(temporary, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        table = csv.writer(file)
        table.writerow(
            [what, "class", "confidence", *(f"{word}_{rank}" for rank in ranks for word in ("class", "confidence"))]
        )
        for sample, found in rows:
            pairs: Iterable[tuple[str, float]] = zip(*found, strict=True)
            table.writerow([sample, *(word for name, sure in pairs for word in (name, f"{sure:.6f}"))])
    os.replace(temporary, path)
