"""Text classification: cross-entropy, accuracy, F1 as the mean over classes, pictures of texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from ...core.ranges import Count, Rate, Weight, checked
from ..task import Task
from .language_modelling import check_task
from .text_picture import FAINT, INK, RIGHT, WRONG, draw_lines

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 76


class TextClassification(Task):
    """One label a text.

    Batches are dicts of input_ids, int64 (batch, length), seq_idx, int32 (batch, length), negative on padding, and labels,
    int64 (batch,). The model returns logits (batch, classes) and pays no heed to padding.

    Logged: loss, accuracy (share of the texts), f1_macro (mean over the classes).

    Args:
        model: the network.
        describe: of the data: "classes", "tokenizer".
        label_smoothing: share of the target spread evenly over all classes, from 0 to below 1 (Szegedy et al. 2016).
        worst: number of test texts in the picture of the worst predictions; 0: none.
        auxiliary: weight of what the model itself wants added to the loss (a mixture of experts' balance).

    Raises:
        UserError: the data set is for another task.
    """

    monitor: ClassVar[tuple[str, str]] = ("val/accuracy", "max")

    @checked(group="task")
    def __init__(
        self,
        model: nn.Module,
        describe: Mapping[str, Any],
        label_smoothing: Rate = 0.0,
        worst: Count = 24,
        auxiliary: Weight = 1.0,
    ):
        super().__init__(model, describe, auxiliary)
        check_task(self.describe, "classification", "TextClassification")
        self.classes, self.tokenizer = list(self.describe["classes"]), self.describe["tokenizer"]
        self.label_smoothing, self.worst = label_smoothing, worst
        self.metrics = nn.ModuleDict({stage: self._new_metrics() for stage in ("val", "test")})
        self._seen, self._entries = 0, []

    def _new_metrics(self) -> nn.ModuleDict:
        count = len(self.classes)
        return nn.ModuleDict(
            {
                "accuracy": MulticlassAccuracy(count, average="micro", validate_args=False),
                "f1_macro": MulticlassF1Score(count, average="macro", validate_args=False),
            }
        )

    def measure(self, batch: Mapping[str, Tensor], stage: str) -> tuple[Tensor, dict[str, Tensor | Metric]]:
        labels = batch["labels"]
        logits = self.model(batch["input_ids"], seq_idx=batch["seq_idx"]).float()
        if stage == "train":
            loss = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
            return loss, {"accuracy": (logits.detach().argmax(1) == labels).float().mean()}
        losses = F.cross_entropy(logits, labels, reduction="none")
        for metric in self.metrics[stage].values():
            metric.update(logits, labels)
        if stage == "test":
            self._remember(losses, batch, logits)
        return losses.mean(), dict(self.metrics[stage])

    def tokens(self, batch: Mapping[str, Tensor]) -> int:
        """Tokens of a batch, padding included."""
        return batch["input_ids"].numel()

    def on_test_start(self) -> None:
        self._seen, self._entries = 0, []

    def explain(self, method: str, prompt: str, batch: Callable[[], Any]) -> tuple[Figure, str]:
        """Draws the prompt's tokens, marked by their part in its class."""
        from .explanation import explain_class

        length = self.describe.get("length")
        return explain_class(self.model, self.tokenizer, prompt, self.classes, method, length)

    def first_batch(self, batch: Mapping[str, Tensor]) -> Figure:
        """Draws the beginnings of up to 24 texts after the names of their labels."""
        texts, labels = self._texts(batch), batch["labels"].tolist()
        lines = [
            [(f"{self.classes[label]:>12.12}  ", FAINT), (text, INK)]
            for text, label in zip(texts[:24], labels, strict=False)
        ]
        return draw_lines(lines, f"First training batch: {len(lines)} of {len(texts)} texts")

    def worst_predictions(self) -> Figure | None:
        """Draws the test texts with the highest loss: true class, predicted class, confidence in both, the text."""
        if not self._entries:
            return None
        lines = []
        for _, label, said, confidences, text in self._entries:
            names = f"is {self.classes[label]:.9} ({confidences[0]:.0%}), said {self.classes[said]:.9} ({confidences[1]:.0%})"
            lines.append([(f"{names:<42}", RIGHT if label == said else WRONG), (text[:SHOWN], INK)])
        return draw_lines(lines, f"Worst of {self._seen:,} test texts: class, prediction (confidence)", columns=120)

    def _texts(self, batch: Mapping[str, Tensor]) -> list[str]:
        real = (batch["seq_idx"] >= 0).cpu()
        rows = zip(batch["input_ids"].cpu(), real, strict=True)
        return [self.tokenizer.decode(ids[here][: 4 * SHOWN].tolist()) for ids, here in rows]

    def _remember(self, losses: Tensor, batch: Mapping[str, Tensor], logits: Tensor) -> None:
        self._seen += len(losses)
        if not self.worst:
            return
        probabilities, said = logits.detach().softmax(1), logits.argmax(1)
        values, places = losses.topk(min(self.worst, len(losses)))
        chosen = self._texts({name: batch[name][places] for name in ("input_ids", "seq_idx")})
        for value, place, text in zip(values.tolist(), places.tolist(), chosen, strict=True):
            label, guess = int(batch["labels"][place]), int(said[place])
            confidences = (float(probabilities[place, label]), float(probabilities[place, guess]))
            self._entries.append((value, label, guess, confidences, text))
        self._entries = sorted(self._entries, key=lambda entry: -entry[0])[: self.worst]
