"""Tasks that show what a sequence model can remember, with samples made anew for every step from a seed."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ...core.ranges import Length, Size, checked
from ..loading import EpochSampler, Key, Loading
from ..module import DataModule, Description
from ..randomness import hashed, uniforms
from .packing import IGNORED
from .texts import Batch

# the first part of every hash: no two splits share a sample, nor what draws lengths
STREAMS = {"train": 11, "val": 12, "test": 13, "length": 14}


class Symbols:
    """Stands where a tokenizer does: token numbers written as numbers, special ones as signs.

    Args:
        vocab_size: how many tokens there are.
        signs: what special tokens are shown as.
    """

    name = "symbols"

    def __init__(self, vocab_size: int, signs: dict[int, str]):
        self.vocab_size, self.signs = vocab_size, signs

    def decode(self, ids: Sequence[int]) -> str:
        """The tokens with spaces between them."""
        return " ".join(self.signs.get(int(token), str(int(token))) for token in ids)


class SyntheticData(DataModule):
    """Base of the synthetic tasks: a subclass says what a sample is, with `make()`.

    A training sample is a function of the seed, the epoch and its number; validation and test samples of the seed 0 and
    their number alone, so that all runs are tested on the same ones.

    Args:
        name: the data set's name in results.
        loading: how batches are made.
        length: tokens in a sample, in training and validation.
        vocab_size: tokens of the vocabulary.
        samples: training samples in an epoch.
        val_samples, test_samples: validation samples, and test samples of each length.
        fresh: other training samples in every epoch; False: the same ones.
        test_lengths: lengths to test at; None: `length`.
        train_lengths: a training batch has one of these lengths, drawn anew for each, every one as likely; None: `length`.
            What is learnt soon on short samples serves on long ones.
    """

    # by how much a sample is longer than its length
    extra_tokens = 0

    @checked(group="data")
    def __init__(
        self,
        name: str,
        loading: Loading,
        length: Length,
        vocab_size: Size,
        samples: Size,
        val_samples: Size,
        test_samples: Size,
        fresh: bool = True,
        test_lengths: Sequence[Size] | None = None,
        train_lengths: Sequence[Size] | None = None,
    ):
        super().__init__(name, loading)
        self.length, self.vocab_size, self.fresh = length, vocab_size, fresh
        self.counts = {"train": samples, "val": val_samples, "test": test_samples}
        if loading.limit is not None:
            self.counts = {split: min(count, loading.limit) for split, count in self.counts.items()}
        self.test_lengths = list(test_lengths) if test_lengths else [length]
        self.train_lengths = list(train_lengths) if train_lengths else [length]
        for each in (length, *self.test_lengths, *self.train_lengths):
            self.check_length(each)

    @abstractmethod
    def check_length(self, length: int) -> None:
        """Raises UserError where no sample has this length."""

    @abstractmethod
    def make(self, keys: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Samples from their keys, uint64 (batch,): inputs and labels (-100: not scored), int64 (batch, length or more)."""

    @abstractmethod
    def symbols(self) -> Symbols:
        """How tokens are written."""

    @abstractmethod
    def answers(self) -> int:
        """How many different tokens can be the right one."""

    def samples(self, split: str) -> int:
        """Samples of a split; of the test, over all its lengths."""
        return self.counts[split] * (len(self.test_lengths) if split == "test" else 1)

    def load_batch(self, split: str, epoch: int, positions: np.ndarray) -> Batch:
        """Samples of one length as dicts of input_ids, labels and seq_idx (all 0)."""
        length = self.length
        if split == "train":
            length = self._training_length(epoch, int(positions[0]))
        elif split == "test":
            place = int(positions[0]) // self.counts["test"]
            length, positions = self.test_lengths[place], positions % self.counts["test"]
        seed, epoch = (self.loading.seed, epoch * self.fresh) if split == "train" else (0, length)
        inputs, labels = self.make(hashed(STREAMS[split], seed, epoch, positions.astype(np.uint64)), length)
        parts = {"input_ids": inputs, "labels": labels, "seq_idx": np.zeros(inputs.shape, np.int32)}
        return {name: torch.from_numpy(part) for name, part in parts.items()}

    def _training_length(self, epoch: int, first: int) -> int:
        """The length of the training batch whose first sample this is."""
        draw = uniforms(1, STREAMS["length"], self.loading.seed, epoch, first).item()
        return self.train_lengths[int(draw * len(self.train_lengths))]

    def sampler(self, split: str, rank: int, ranks: int) -> EpochSampler:
        """Of the test, one length after the other, with fewer of the long samples in a batch."""
        if split != "test":
            return super().sampler(split, rank, ranks)
        size = self.loading.batch_size
        sizes = [max(1, min(size, 4 * size * self.length // length)) for length in self.test_lengths]
        return LengthSampler(self.counts["test"], sizes, rank, ranks)

    def describe(self) -> Description:
        """See `DataModule.describe`."""
        longest = max(self.length, *self.train_lengths) + self.extra_tokens
        return self.described(
            shape=f"{self.length:,} tokens ({Symbols.name}, {self.vocab_size:,})",
            for_model={
                "task": "recall",
                "vocab_size": self.vocab_size,
                "length": self.length,
                "test_lengths": self.test_lengths,
                "train_lengths": self.train_lengths,
                "extra_tokens": self.extra_tokens,
                "chance": 1 / self.answers(),
                "model_size": "micro",
            },
            values=longest,
            length=longest,
            resized_by="data.length",
        )

    def kept(self) -> Mapping[str, Any]:
        """See `DataModule.kept`: how tokens are written; it follows from the settings."""
        return {"tokenizer": self.symbols()}

    @classmethod
    def reading(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """See `DataModule.reading`."""
        kept = {key: settings[key] for key in ("length", "vocab_size") if settings.get(key) is not None}
        return {**super().reading(settings), **kept}


class LengthSampler(EpochSampler):
    """The samples of several lengths in order, no two lengths in a batch.

    Args:
        count: samples of each length; those of the n-th have the positions from n * count on.
        sizes: samples in a batch of one process, for each length.
        rank, ranks: this process, and how many there are.
    """

    def __init__(self, count: int, sizes: Sequence[int], rank: int = 0, ranks: int = 1):
        super().__init__(count * len(sizes), max(sizes), 0, False, rank, ranks)
        self.pieces = [
            np.arange(start, min(start + size * ranks, (place + 1) * count))
            for place, size in enumerate(sizes)
            for start in range(place * count, (place + 1) * count, size * ranks)
        ]
        self.batches = len(self.pieces)

    def __iter__(self) -> Iterator[Key]:
        for members in self.pieces[self.start :]:
            yield self.epoch, members[self.rank :: self.num_replicas]


def chosen(keys: np.ndarray, stream: int, count: int, of: int) -> np.ndarray:
    """`count` different numbers below `of` for each key, in random order: int64 (batch, count), every order equally likely.

    Floyd's method (Bentley and Floyd 1987) gives a set with one draw a number; the order comes from a draw of its own.
    """
    draws = uniforms(2 * count, hashed(keys, stream))
    found = np.empty((len(keys), count), np.int64)
    for step in range(count):
        top = of - count + step
        number = np.minimum((draws[:, step] * (top + 1)).astype(np.int64), top)
        taken = (found[:, :step] == number[:, None]).any(1)
        found[:, step] = np.where(taken, top, number)
    return np.take_along_axis(found, np.argsort(draws[:, count:], 1, kind="stable"), 1)


def integers(keys: np.ndarray, stream: int, count: int, low: int, high: int) -> np.ndarray:
    """`count` whole numbers from `low` to below `high` for each key: int64 (batch, count)."""
    return low + (uniforms(count, hashed(keys, stream)) * (high - low)).astype(np.int64)


def unscored(shape: tuple[int, ...]) -> np.ndarray:
    """Labels of which none is scored."""
    return np.full(shape, IGNORED, np.int64)
