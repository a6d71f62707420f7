"""A domain small enough for tests: points in three classes, a small network with dropout, Lightning's own loop."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from polymamba.core.errors import UserError
from polymamba.core.ranges import Count, Size
from polymamba.data.loading import Loading
from polymamba.data.module import DataModule, Description
from polymamba.domains.task import Task
from polymamba.domains.trained import Answer, Trained

FOUR = Loading(batch_size=4)


class Net(nn.Module):
    """(batch, 1, 2, 2) -> (batch, classes), with dropout so that the random state matters."""

    def __init__(self, features: int, classes: int, hidden: int = 8, dropout: float = 0.2, explode: bool = False):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(features, hidden),
            nn.ReLU(),
            nn.LayerNorm(hidden),
            nn.Dropout(dropout),
            nn.Linear(hidden, classes),
        )
        self.explode = explode

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(x.flatten(1))
        return y * float("nan") if self.explode and self.training else y


def build(describe: dict[str, Any], size: str | None = None, patch_size: int = 2, **options: Any) -> Net:
    """A Net for the data; a patch size that does not divide the width is refused, as real models do."""
    width = describe["image_size"][0] * describe["image_size"][1]
    if width % patch_size:
        raise UserError(
            "the patch size does not divide the width", given=f"model.patch_size={patch_size}", allowed="1, 2, 4",
            do="model.patch_size=2",
        )  # fmt: skip
    return Net(width, describe["num_classes"], **options)


class Points(DataModule):
    """Gaussian points, shuffled by (seed, epoch)."""

    def __init__(self, samples: int = 48, classes: int = 3, loading: Loading = FOUR):
        super().__init__("toy_points", loading)
        self.count, self.classes = samples, classes
        self.inputs = torch.randn(samples, 1, 2, 2, generator=torch.Generator().manual_seed(loading.seed))
        self.labels = self.inputs.flatten(1)[:, :classes].argmax(1)

    def samples(self, split: str) -> int:
        return self.count

    def load_batch(self, split: str, epoch: int, positions: np.ndarray) -> tuple[Tensor, Tensor]:
        index = torch.from_numpy(positions)
        return self.inputs[index], self.labels[index]

    def describe(self) -> Description:
        sizes = {"image_size": [2, 2], "channels": 1, "num_classes": self.classes}
        return self.described(values=4, for_model={**sizes, "classes": [str(i) for i in range(self.classes)]})


class Classify(Task):
    """Cross entropy and accuracy."""

    monitor = ("val/accuracy", "max")

    def __init__(self, model: nn.Module, describe: dict[str, Any], label_smoothing: float = 0.0):
        super().__init__(model, describe)
        self.label_smoothing = label_smoothing

    def step(self, batch: Any, stage: str):
        x, target = batch
        logits = self.model(x)
        loss = nn.functional.cross_entropy(logits, target, label_smoothing=self.label_smoothing)
        return loss, {"accuracy": (logits.argmax(1) == target).float().mean()}


def predict(run: Trained, first: Count = 0, count: Size = 3, say: str | None = None) -> Answer:
    """The classes of a few test points; points after the last are problems."""
    inputs, _ = next(iter(run.data.test_dataloader()))
    with torch.no_grad():
        labels = run.model(inputs.to(run.device)).argmax(1).tolist()
    asked = range(first, first + count)
    path = run.folder / "labels.txt"
    path.write_text(f"{say}: {labels}")
    lines = [f"point {each}: {labels[each]}" for each in asked if each < len(labels)]
    return Answer(lines, [path], [f"there is no point {each}" for each in asked if each >= len(labels)])


class Bytes:
    """A tokenizer: every byte is a token, 256 ends a text."""

    vocab_size, end = 257, 256

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def bytes_of(self, ids) -> bytes:
        return bytes(each for each in ids if each < 256)

    def byte_counts(self) -> np.ndarray:
        return np.array([1] * 256 + [0])


class Sentences(DataModule):
    """Text that is only described."""

    def __init__(self, loading: Loading = FOUR):
        super().__init__("toy_text", loading)

    def samples(self, split: str) -> int:
        return 1

    def describe(self) -> Description:
        return self.described(for_model={"vocab_size": 257, "task": "language_modelling"})

    def kept(self) -> dict[str, Any]:
        return {"tokenizer": Bytes()}
