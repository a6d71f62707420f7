"""Language modelling: loss a token, perplexity a token, bits a byte; pictures of what is read and what surprised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric

from ...core.errors import UserError
from ...core.pictures import FAINT, INK, RIGHT, WRONG
from ...core.ranges import Count, Size, Weight, checked
from ..task import Task
from .generation import generate
from .text_loss import NATS_PER_BIT, Ratio, byte_counts
from .text_picture import draw_lines
from .text_stream import text_after

if TYPE_CHECKING:
    from matplotlib.figure import Figure

IGNORED = -100
CONTEXT, AFTER = 60, 24


class LanguageModelling(Task):
    """Predicts every next token.

    Batches are dicts of input_ids and labels (the next tokens; -100: not scored), int64 (batch, length), and seq_idx,
    int32 (batch, length), that changes between documents and is negative on padding. The model returns logits (batch,
    length, vocabulary or more) and states.

    Logged: loss (nats a token), perplexity_per_token (e to the loss: compares only between equal tokenizers),
    bits_per_byte (compares between all tokenizers; bytes of the UTF-8 text, and the tokens that end documents count in
    the loss but have no bytes).

    Args:
        model: the network.
        describe: of the data: "tokenizer", "vocab_size".
        auxiliary: weight of what the model itself wants added to the loss (a mixture of experts' balance).
        chunk: in validation and test, longer rows are read in pieces of this many tokens, the states carried on; None: whole.
        worst: number of test tokens in the picture of the worst predictions; 0: none.
        sample: tokens of the text that the model writes after each validation; 0: none.
        prompt: what that text begins with; "": a new document, which a model of a single text has hardly seen begin.

    Raises:
        UserError: the data set is for another task.
    """

    monitor: ClassVar[tuple[str, str]] = ("val/bits_per_byte", "min")

    @checked(group="task")
    def __init__(
        self,
        model: nn.Module,
        describe: Mapping[str, Any],
        auxiliary: Weight = 1.0,
        chunk: Size | None = None,
        worst: Count = 24,
        sample: Count = 300,
        prompt: str = "\n",
    ):
        super().__init__(model, describe, auxiliary)
        check_task(self.describe, "language_modelling", "LanguageModelling")
        self.vocab_size, self.tokenizer = self.describe["vocab_size"], self.describe["tokenizer"]
        self.chunk, self.sample_tokens, self.prompt = chunk, sample, prompt
        self.register_buffer("byte_counts", byte_counts(self.tokenizer), persistent=False)
        self.metrics = nn.ModuleDict({stage: self._new_metrics() for stage in ("val", "test")})
        self.surprises = Surprises(worst)

    @staticmethod
    def _new_metrics() -> nn.ModuleDict:
        named = {
            "loss": Ratio(), "perplexity_per_token": Ratio(exponential=True), "bits_per_byte": Ratio(scale=1 / NATS_PER_BIT),
        }  # fmt: skip
        return nn.ModuleDict(named)

    def step(self, batch: Mapping[str, Tensor], stage: str) -> tuple[Tensor, dict[str, Tensor | Metric]]:
        labels = batch["labels"]
        scored = labels != IGNORED
        if stage == "train":
            logits, _ = self.model(*self.inputs(batch))
            losses = self._losses(logits, labels)
        else:
            losses = self._losses_in_pieces(batch)
        nats, tokens, size = losses.sum(), scored.sum(), (self._sizes(batch) * scored).sum()
        loss = nats / tokens.clamp(min=1)
        if stage == "train":
            bits = nats.detach() / size.clamp(min=1) / NATS_PER_BIT
            return loss, {"bits_per_byte": bits}
        for name, metric in self.metrics[stage].items():
            metric.update(nats, size if name == "bits_per_byte" else tokens)
        if stage == "test":
            self.surprises.add(losses, batch)
        return loss, dict(self.metrics[stage])

    def inputs(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, None, Tensor]:
        """Token numbers, no states, and where documents change."""
        return batch["input_ids"], None, batch["seq_idx"]

    def tokens(self, batch: Mapping[str, Tensor]) -> int:
        """Tokens of a batch, padding included."""
        return batch["input_ids"].numel()

    def _sizes(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Bytes of every label's text, (batch, length); a document's first token may be shorter there than elsewhere."""
        begins = batch["input_ids"] == self.tokenizer.end
        return self.byte_counts[begins.long(), batch["labels"].clamp(min=0)]

    def _losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Nats of every token, (batch, length), 0 where it is not scored; the vocabulary's padding takes no part."""
        logits = logits[..., : self.vocab_size].float()
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(labels.shape)

    def _losses_in_pieces(self, batch: Mapping[str, Tensor]) -> Tensor:
        """As `_losses`, the row read in pieces of `chunk` tokens."""
        length = batch["labels"].shape[1]
        states, parts = None, []
        for start in range(0, length, self.chunk or length):
            piece = slice(start, start + (self.chunk or length))
            logits, states = self.model(batch["input_ids"][:, piece], states, batch["seq_idx"][:, piece])
            parts.append(self._losses(logits, batch["labels"][:, piece]))
        return torch.cat(parts, 1)

    def on_test_start(self) -> None:
        self.surprises.clear()

    def pictures(self, stage: str, batch: Any = None) -> Mapping[str, Figure | str]:
        if stage == "train":
            return {"first_batch": self.draw_batch(batch)}
        if stage == "val":
            return {"samples": self.sample()} if self.sample_tokens else {}
        return {"worst_predictions": self.draw_worst()} if self.surprises.entries else {}

    def sample(self) -> str:
        """A text that the model writes from the prompt, at a temperature of 0.8; the same random numbers each time."""
        training = self.model.training
        self.model.eval()
        options = {"max_new_tokens": self.sample_tokens, "temperature": 0.8}
        written = generate(self.model, self.prompt, self.tokenizer, **options)
        self.model.train(training)
        return self.prompt + written.texts[0]

    def draw_batch(self, batch: Mapping[str, Tensor]) -> Figure:
        """Draws the beginnings of up to 24 rows; a document's text stands in another shade than the one before it."""
        ids, seq_idx = batch["input_ids"].cpu(), batch["seq_idx"].cpu()
        lines = []
        for row, numbers in zip(ids[:24], seq_idx[:24], strict=True):
            pieces = []
            for number in numbers[:200].unique().tolist():
                text = self.tokenizer.decode(row[:200][numbers[:200] == number].tolist())
                pieces.append(("padding" if number < 0 else f"{text}▏", FAINT if number % 2 else INK))
            lines.append(pieces)
        heading = (
            f"First training batch: {len(ids)} rows of {ids.shape[1]} tokens, {len(lines)} shown from their beginning"
        )
        return draw_lines(lines, heading)

    def draw_worst(self) -> Figure:
        """Draws the test tokens with the highest loss: what stood before them, the token in red, the one expected in green."""
        entries = self.surprises.entries
        logits = self._predictions(entries)
        lines = []
        for entry, expected in zip(entries, logits, strict=True):
            before = self.tokenizer.decode(entry["before"])[-CONTEXT:]
            mark, likelier = (self._shown(entry["before_ids"], token) for token in (entry["label"], expected))
            lines.append(
                [
                    (f"{entry['loss'] / NATS_PER_BIT:5.1f} bits ", FAINT), (before.rjust(CONTEXT), INK), (mark, WRONG),
                    (self.tokenizer.decode(entry["after"])[:AFTER], FAINT), (f"  expected {likelier}", RIGHT),
                ]
            )  # fmt: skip
        return draw_lines(lines, f"Worst of {self.surprises.seen:,} test tokens: the text, the token it did not expect")

    def _shown(self, before: list[int], token: int) -> str:
        text = text_after(self.tokenizer, before, token)
        return "▏end" if not text else text.replace(" ", "␣")

    @torch.no_grad()
    def _predictions(self, entries: list[dict[str, Any]]) -> list[int]:
        """The likeliest token where each entry stands."""
        found = []
        for entry in entries:
            ids = torch.tensor([entry["before_ids"]], device=self.byte_counts.device)
            logits, _ = self.model(ids)
            found.append(int(logits[0, -1, : self.vocab_size].argmax()))
        return found


class Surprises:
    """Keeps the tokens with the highest loss seen since the last `clear`, with what stands around them, on the CPU.

    Args:
        count: how many.

    Attributes:
        seen: tokens shown since the last `clear`.
        entries: dicts of "loss", "label", "before_ids" (its document's inputs up to it, at most 1,024), "before" and
            "after" (tokens around it); highest loss first.
    """

    def __init__(self, count: int):
        self.count = count
        self.clear()

    def clear(self) -> None:
        """Forgets everything."""
        self.seen, self.entries = 0, []

    def add(self, losses: Tensor, batch: Mapping[str, Tensor]) -> None:
        """Looks through a batch.

        Args:
            losses: nats, (batch, length), 0 where nothing is scored.
            batch: as `LanguageModelling` takes it.
        """
        self.seen += int((batch["labels"] != IGNORED).sum())
        if not self.count:
            return
        values, places = losses.flatten().topk(min(self.count, losses.numel()))
        lowest = self.entries[-1]["loss"] if len(self.entries) == self.count else 0.0
        for value, place in zip(values.tolist(), places.tolist(), strict=True):
            if value > lowest:
                self.entries.append(_surprise(value, *divmod(place, losses.shape[1]), batch))
        self.entries = sorted(self.entries, key=lambda entry: -entry["loss"])[: self.count]


def _surprise(loss: float, row: int, column: int, batch: Mapping[str, Tensor]) -> dict[str, Any]:
    ids, labels, numbers = (batch[name][row] for name in ("input_ids", "labels", "seq_idx"))
    same = (numbers == numbers[column]).cpu()
    start = int(same.nonzero()[0])
    stop = int(same.nonzero()[-1]) + 1
    before = ids[max(start, column - 1023) : column + 1].tolist()
    after = labels[column + 1 : min(stop, column + 1 + 2 * AFTER)].tolist()
    return {
        "loss": loss, "label": int(labels[column]), "before_ids": before, "before": before[-2 * CONTEXT :],
        "after": [token for token in after if token != IGNORED],
    }  # fmt: skip


def check_task(describe: Mapping[str, Any], task: str, name: str) -> None:
    """Raises UserError where a data set is for another task than this one."""
    meant = describe.get("task", task)
    if meant != task:
        option = {"classification": "text_classification"}.get(meant, meant)
        raise UserError(
            f"{describe.get('name', 'this data set')} is for {meant.replace('_', ' ')}",
            given=f"task {name}",
            allowed=f"task={option}",
            do=f"task={option}",
        )
