"""Text classification: cross-entropy, accuracy, F1 as the mean over classes, pictures of texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassF1Score

from ...core.pictures import FAINT, INK, RIGHT, WRONG
from ...core.ranges import Count, Rate, Weight, checked
from ..classification import Classifying
from .language_modelling import check_task
from .text_picture import draw_lines

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 76


class TextClassification(Classifying):
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

    @checked(group="task")
    def __init__(
        self,
        model: nn.Module,
        describe: Mapping[str, Any],
        label_smoothing: Rate = 0.0,
        worst: Count = 24,
        auxiliary: Weight = 1.0,
    ):
        check_task(describe, "classification", "TextClassification")
        super().__init__(model, describe, label_smoothing, worst, auxiliary)
        self.tokenizer = self.describe["tokenizer"]

    def more_metrics(self) -> dict[str, Metric]:
        return {"f1_macro": MulticlassF1Score(self.num_classes, average="macro", validate_args=False)}

    def inputs(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        return batch["input_ids"], batch["seq_idx"]

    def labels(self, batch: Mapping[str, Tensor]) -> Tensor:
        return batch["labels"]

    def tokens(self, batch: Mapping[str, Tensor]) -> int:
        """Tokens of a batch, padding included."""
        return batch["input_ids"].numel()

    def kept(self, batch: Mapping[str, Tensor], positions: Tensor) -> list[str]:
        return self._texts({name: batch[name][positions] for name in ("input_ids", "seq_idx")})

    def draw_batch(self, batch: Mapping[str, Tensor]) -> Figure:
        """Draws the beginnings of up to 24 texts after the names of their labels."""
        texts, labels = self._texts(batch), batch["labels"].tolist()
        lines = [
            [(f"{self.name_of(label):>12.12}  ", FAINT), (text, INK)]
            for text, label in zip(texts[:24], labels, strict=False)
        ]
        return draw_lines(lines, f"First training batch: {len(lines)} of {len(texts)} texts")

    def draw_worst(self) -> Figure:
        """Draws the test texts with the highest loss: true class, predicted class, confidence in both, the text."""
        lines = []
        for entry in self.worst.entries:
            true, said = (self.name_of(entry[which]) for which in ("true", "predicted"))
            names = f"is {true:.9} ({entry['true_confidence']:.0%}), said {said:.9} ({entry['confidence']:.0%})"
            colour = RIGHT if entry["true"] == entry["predicted"] else WRONG
            lines.append([(f"{names:<42}", colour), (entry["sample"][:SHOWN], INK)])
        heading = f"Worst of {self.worst.seen:,} test texts: class, prediction (confidence)"
        return draw_lines(lines, heading, columns=120)

    def _texts(self, batch: Mapping[str, Tensor]) -> list[str]:
        real = (batch["seq_idx"] >= 0).cpu()
        rows = zip(batch["input_ids"].cpu(), real, strict=True)
        return [self.tokenizer.decode(ids[here][: 4 * SHOWN].tolist()) for ids, here in rows]
