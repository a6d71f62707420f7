"""What all data sets of labelled samples in memory share: parts of equal proportions, a limit, checks that no part is empty."""

from __future__ import annotations

from abc import abstractmethod
from typing import Protocol, Self

import numpy as np
import torch

from ...core.errors import UserError
from ..loading import Loading
from ..module import DataModule
from ..randomness import first_of_each, hashed, stratified


class Part(Protocol):
    """Samples of one split: `labels` are int64 of shape (samples,)."""

    labels: torch.Tensor

    def __len__(self) -> int: ...

    def take(self, positions: np.ndarray) -> Self:
        """The samples at these positions, (count,)."""


class Labelled(DataModule):
    """Base of the data modules whose samples have one label each: a subclass says where they come from, with `load()`.

    Args:
        name: the data set's name in results.
        loading: how batches are made.
        split_seed: seed of the splits and of `limit`'s choice; apart from the run's seed, so that runs can be compared.
    """

    what = "samples"  # what they are, in a message

    def __init__(self, name: str, loading: Loading, split_seed: int):
        super().__init__(name, loading)
        self.split_seed = split_seed
        self.splits: dict[str, Part] | None = None

    @abstractmethod
    def load(self) -> dict[str, Part]:
        """Read the samples of train, val and test and check them; raises UserError naming the file that is wrong.

        Data that can only be tested on are test alone, or val and test.
        """

    def setup(self, stage: str | None = None) -> None:
        """Read the samples, once."""
        if self.splits is not None:
            return
        splits = self.load()
        for name, split in splits.items():
            if len(split) == 0:
                raise UserError(
                    f"{self.name} has no {name} samples",
                    do=f"raise data.val_fraction, or add {self.what}" if name == "val" else f"add {self.what}",
                )
        if self.loading.limit is not None:
            splits = {name: self._limited(split) for name, split in splits.items()}
        self.splits = splits

    def samples(self, split: str) -> int:
        """Samples of a split; 0 where there is none."""
        return len(self.splits[split]) if split in self.splits else 0

    def _limited(self, split: Part) -> Part:
        labels = split.labels.numpy()
        return split.take(first_of_each(labels, hashed(self.split_seed, np.arange(len(split))), self.loading.limit))

    def _divided(self, samples: Part, *fractions: float) -> list[Part]:
        """Stratified parts: the rest first, then one of each fraction."""
        keys = hashed(self.split_seed, np.arange(len(samples)))
        return [samples.take(part) for part in stratified(samples.labels.numpy(), keys, fractions)]
