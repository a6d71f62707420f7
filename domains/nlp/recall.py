"""Recall: accuracy on the few tokens that are asked for, at every length that is tested."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.linear import applied
from ...core.pictures import FAINT, INK, RIGHT
from ...core.ranges import Rate, Size, Weight, checked
from ..task import Task
from .language_modelling import IGNORED, check_task
from .text_loss import Ratio
from .text_picture import draw_lines

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Recall(Task):
    """Predicts the tokens that a synthetic task asks for.

    Batches are as `LanguageModelling` takes them; most labels are -100. The head is computed only where something is
    asked. Logged: loss and accuracy over what is asked; of a test at several lengths also accuracy_at_<length>, and
    loss and accuracy are over all lengths together.

    Args:
        model: the network, with `hidden` and `lm_head`.
        describe: of the data: "vocab_size", "tokenizer", "test_lengths", "extra_tokens" (how much longer than its length a
            sample is).
        auxiliary: weight of what the model itself wants added to the loss (a mixture of experts' balance).
        label_smoothing: share of the training target spread over all tokens, 0 to below 1. Above 0 the loss keeps on weighing
            what tokens that are not asked for leave in the state, however sure the answer: memory lasts past the
            training length.
        chunk: in validation and test, longer samples are read in pieces of this many tokens, the states carried on, so that
            memory does not grow with the length.

    Attributes:
        tested: accuracy at each length of the last test.

    Raises:
        UserError: the data set is for another task, a share out of range.
    """

    monitor: ClassVar[tuple[str, str]] = ("val/accuracy", "max")

    @checked(group="task")
    def __init__(
        self,
        model: nn.Module,
        describe: Mapping[str, Any],
        auxiliary: Weight = 1.0,
        label_smoothing: Rate = 0.0,
        chunk: Size = 8192,
    ):
        super().__init__(model, describe, auxiliary)
        check_task(self.describe, "recall", "Recall")
        self.label_smoothing = label_smoothing
        self.vocab_size, self.chunk = self.describe["vocab_size"], chunk
        self.metrics = nn.ModuleDict({stage: self._new_metrics() for stage in ("val", "test")})
        lengths = self.describe.get("test_lengths", [])
        self.tested: dict[int, float] = {}
        self.at_length = nn.ModuleDict({str(each): Ratio() for each in lengths} if len(lengths) > 1 else {})

    @staticmethod
    def _new_metrics() -> nn.ModuleDict:
        return nn.ModuleDict({"loss": Ratio(), "accuracy": Ratio()})

    def step(self, batch: Mapping[str, Tensor], stage: str) -> tuple[Tensor, dict[str, Any]]:
        logits, labels = self._answers(batch, None if stage == "train" else self.chunk)
        smoothing = self.label_smoothing if stage == "train" else 0.0
        losses = F.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
        right = (logits.detach().argmax(1) == labels).float()
        loss = losses.mean()
        if stage == "train":
            return loss, {"accuracy": right.mean()}
        count = torch.tensor(len(labels), device=labels.device)
        self.metrics[stage]["loss"].update(losses.sum(), count)
        self.metrics[stage]["accuracy"].update(right.sum(), count)
        named = dict(self.metrics[stage])
        if stage == "test" and self.at_length:
            length = batch["labels"].shape[1] - self.describe.get("extra_tokens", 0)
            self.at_length[str(length)].update(right.sum(), count)
            named[f"accuracy_at_{length}"] = self.at_length[str(length)]
        return loss, named

    def on_test_epoch_end(self) -> None:
        measured = {length: metric for length, metric in self.at_length.items() if metric.update_called}
        self.tested = {int(length): float(metric.compute()) for length, metric in measured.items()}

    def inputs(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, None, Tensor]:
        """Token numbers, no states, and where samples change."""
        return batch["input_ids"], None, batch["seq_idx"]

    def tokens(self, batch: Mapping[str, Tensor]) -> int:
        """Tokens of a batch."""
        return batch["input_ids"].numel()

    def pictures(self, stage: str, batch: Any = None) -> Mapping[str, Figure | str]:
        if stage == "train":
            return {"first_batch": self.draw_batch(batch)}
        return {"worst_predictions": self.draw_accuracy()} if stage == "test" and len(self.tested) > 1 else {}

    def draw_batch(self, batch: Mapping[str, Tensor]) -> Figure:
        """Draws up to 24 samples, from their beginning and to their end, with what is asked for in green."""
        ids, labels = batch["input_ids"].cpu(), batch["labels"].cpu()
        decode = self.describe["tokenizer"].decode
        lines = []
        for row, asked in zip(ids[:24], labels[:24], strict=True):
            answer = decode(asked[asked != IGNORED][:16].tolist())
            parts = (row.tolist(), []) if len(row) <= 36 else (row[:18].tolist(), row[-16:].tolist())
            middle = " … " if parts[1] else ""
            shown = decode(parts[0]) + middle + decode(parts[1])
            lines.append([(f"{shown}  ", INK), ("asked: ", FAINT), (answer, RIGHT)])
        return draw_lines(
            lines, f"First training batch: {len(lines)} of {len(ids)} samples of {ids.shape[1]:,} tokens", 150
        )

    def draw_accuracy(self) -> Figure:
        """Draws accuracy against length."""
        from matplotlib.figure import Figure

        tested = self.tested
        figure = Figure(figsize=(7, 3.6), dpi=110, facecolor="white")
        axis = figure.add_axes((0.09, 0.15, 0.88, 0.73))
        axis.plot(list(tested), [100 * value for value in tested.values()], color="#0b5fa5", marker="o", ms=4)
        axis.axvline(self.describe["length"], color="#888888", lw=0.8, ls="--")
        axis.axhline(100 * self.describe.get("chance", 0), color="#888888", lw=0.8, ls=":")
        axis.set_xscale("log", base=2)
        axis.set_ylim(0, 103)
        axis.set_title("accuracy (%) at each length; dashed: trained at; dotted: chance", loc="left", fontsize=10)
        axis.set_xlabel("tokens", fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
        return figure

    def _answers(self, batch: Mapping[str, Tensor], chunk: int | None) -> tuple[Tensor, Tensor]:
        """Logits (asked, vocabulary) in float32 where something is asked, and the labels there (asked,)."""
        ids, labels = batch["input_ids"], batch["labels"]
        length, states = ids.shape[1], None
        logits, found = [], []
        for start in range(0, length, chunk or length):
            piece = slice(start, start + (chunk or length))
            hidden, states = self.model.hidden(ids[:, piece], states, batch["seq_idx"][:, piece])
            asked = labels[:, piece] != IGNORED
            logits.append(applied(self.model.lm_head, hidden[asked])[:, : self.vocab_size].float())
            found.append(labels[:, piece][asked])
        return torch.cat(logits), torch.cat(found)
