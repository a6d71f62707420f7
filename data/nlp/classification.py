"""What the data sets of labelled texts share: tokenizer, padded batches, description."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from ...core.ranges import Seed, Size
from ..loading import Loading
from ..module import SPLITS, Description
from ..randomness import first_of_each, hashed, stratified
from .documents import Documents, from_texts
from .packing import PADDING
from .texts import Batch, TokenisedData

# lengths of batches are rounded up to a multiple of this, so that few lengths occur
ROUND = 16


@dataclass(frozen=True)
class Labelled:
    """Texts of one split and their classes, int64 (texts,)."""

    texts: Documents
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: np.ndarray) -> Labelled:
        """The texts at these positions."""
        return Labelled(self.texts.take(positions), self.labels[positions])


def labelled(texts: Sequence[str], labels: Sequence[int]) -> Labelled:
    """Texts and labels as a split; an empty text becomes a line's end."""
    return Labelled(from_texts([text or "\n" for text in texts]), np.array(labels, np.int64))


class TextClassificationData(TokenisedData):
    """Base of the data modules for text classification: a subclass says where the texts come from, with `load()`.

    Batches are dicts: input_ids, int64 (batch, longest), padded on the right with the end mark; seq_idx, int32 of that
    shape, 0 on text and -1 on padding; labels, int64 (batch,).

    Args:
        name: the data set's name in results.
        loading: how batches are made.
        length: of a longer text only this many tokens are read, the first.
        tokenizer: bytes, bpe (trained on the training texts), or the path of a tokenizer.json.
        vocab_size: tokens of the byte-pair encoding.
        split_seed: seed of the splits and of `limit`'s choice; apart from the run's seed, so that runs can be compared.
    """

    classes: Sequence[str]

    def __init__(
        self,
        name: str,
        loading: Loading,
        length: Size = 1024,
        tokenizer: str = "bytes",
        vocab_size: Size = 4096,
        split_seed: Seed = 0,
    ):
        super().__init__(name, loading, length, tokenizer, vocab_size)
        self.split_seed = split_seed
        self.splits: dict[str, Labelled] | None = None

    @abstractmethod
    def load(self) -> dict[str, Labelled]:
        """Read the texts of train, val and test and check them; raises UserError naming the file that is wrong."""

    def setup(self, stage: str | None = None) -> None:
        """Read and tokenise the texts, once."""
        if self.splits is not None:
            return
        splits = self.load()
        tokenizer = self.tokenizer_for(splits["train"].texts)
        if self.loading.limit is not None:
            splits = {name: self._limited(split) for name, split in splits.items()}
        self.splits = {s: Labelled(tokenizer.tokenise(splits[s].texts), splits[s].labels) for s in SPLITS}

    def samples(self, split: str) -> int:
        """Texts of a split."""
        return len(self.splits[split])

    def load_batch(self, split: str, epoch: int, positions: np.ndarray) -> Batch:
        """Texts padded to the longest of them; see the class."""
        part = self.splits[split]
        texts = [part.texts[position][: self.length] for position in positions]
        longest = min(-(-max(map(len, texts)) // ROUND) * ROUND, self.length)
        inputs = np.full((len(texts), longest), self.tokenizer.end, np.int64)
        seq_idx = np.full((len(texts), longest), PADDING, np.int32)
        for row, text in enumerate(texts):
            inputs[row, : len(text)], seq_idx[row, : len(text)] = text, 0
        batch = {"input_ids": inputs, "seq_idx": seq_idx, "labels": part.labels[positions]}
        return {name: torch.from_numpy(values) for name, values in batch.items()}

    def describe(self) -> Description:
        """See `DataModule.describe`."""
        self.read()
        described = self.described(
            for_model={
                "task": "classification",
                "classes": list(self.classes),
                "num_classes": len(self.classes),
                "model_size": "micro",
            }
        )
        return replace(described, shape=f"{described.shape}, {len(self.classes)} classes")

    def divided(self, samples: Labelled, fraction: float) -> tuple[Labelled, Labelled]:
        """The rest and a part of the samples, in each class."""
        keys = hashed(self.split_seed, np.arange(len(samples)))
        rest, part = stratified(samples.labels, keys, (fraction,))
        return samples.take(rest), samples.take(part)

    def _limited(self, split: Labelled) -> Labelled:
        keys = hashed(self.split_seed, np.arange(len(split)))
        return split.take(first_of_each(split.labels, keys, self.loading.limit))
