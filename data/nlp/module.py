"""What the data modules of text for language modelling share: splits, tokenizer, packed rows, description."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import Dataset

from ...core.errors import UserError
from ...core.ranges import Length, Size, checked
from ..loading import EpochLoader, EpochSampler, Key, Loading
from ..randomness import hashed
from ..sources import Source
from .documents import Documents
from .packing import PackedRows
from .tokenizer import Tokenizer, make_tokenizer

SPLITS = ("train", "val", "test")
# up to this many tokens of training text, the data set asks for the micro model
MICRO = 20_000_000
Batch = dict[str, torch.Tensor]


class TextBatches(Dataset):
    """Batches as dicts of tensors, made at once from the samples' positions.

    Args:
        load: given the epoch and sample positions of shape (batch,), returns the batch.
    """

    def __init__(self, load: Callable[[int, np.ndarray], Batch]):
        self.load = load

    def __getitem__(self, key: Key) -> Batch | UserError:
        try:
            return self.load(*key)
        except UserError as error:
            # raised by the loader: what a worker raises reaches the user wrapped in two stack traces
            return error


class TextModule(LightningDataModule):
    """Base of all data modules of text: three loaders over samples that a subclass makes.

    Args:
        name: the data set's name in results.
        loading: how batches are made.
    """

    source: Source

    def __init__(self, name: str, loading: Loading):
        super().__init__()
        self.name, self.loading = name, loading

    @abstractmethod
    def samples(self, split: str) -> int:
        """Number of samples of a split."""

    @abstractmethod
    def load_batch(self, split: str, epoch: int, positions: np.ndarray) -> Batch:
        """The samples of a split at these positions, (batch,); a function of its arguments alone."""

    @abstractmethod
    def describe(self) -> dict[str, object]:
        """What a model and a report have to know about the data; reads (and downloads) it first, where that was not done."""

    def prepare_data(self) -> None:
        """Download what is missing; Lightning calls this in one process of each machine."""

    def setup(self, stage: str | None = None) -> None:
        """Read the samples, once."""

    def train_dataloader(self) -> EpochLoader:
        """Shuffled batches."""
        return self.loader("train")

    def val_dataloader(self) -> EpochLoader:
        """Every validation sample once, in order."""
        return self.loader("val")

    def test_dataloader(self) -> EpochLoader:
        """Every test sample once, in order."""
        return self.loader("test")

    def predict_dataloader(self) -> EpochLoader:
        """The test samples."""
        return self.test_dataloader()

    def loader(self, split: str) -> EpochLoader:
        """The loader of a split."""
        self.setup()
        rank, ranks = (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)
        count, loading = self.samples(split), self.loading
        if count < ranks:
            raise UserError(f"{self.name} has fewer {split} samples than there are processes", given=count)
        batches = TextBatches(partial(self.load_batch, split))
        return EpochLoader(batches, self.sampler(split, rank, ranks), loading.workers, loading.pin_memory)

    def sampler(self, split: str, rank: int, ranks: int) -> EpochSampler:
        """The order of a split's samples for one of several processes."""
        loading = self.loading
        return EpochSampler(self.samples(split), loading.batch_size, loading.seed, split == "train", rank, ranks)

    def told(self) -> dict[str, object]:
        """The part of `describe` that every data set of text has."""
        return {
            "domain": "nlp",
            "name": self.name,
            **{split: self.samples(split) for split in SPLITS},
            "title": self.source.title,
            "source": self.source.homepage,
            "licence": self.source.licence,
            "split": self.source.protocol,
            "limit": self.loading.limit,
        }


class TextData(TextModule):
    """Base of the data modules for language modelling: a subclass says where the documents come from, with `load()`.

    Args:
        name: the data set's name in results.
        loading: how batches are made.
        length: tokens in a row.
        tokenizer: bytes, bpe (trained on the training documents), or the path of a tokenizer.json.
        vocab_size: tokens of the byte-pair encoding.
    """

    @checked(group="data")
    def __init__(
        self, name: str, loading: Loading, length: Length = 512, tokenizer: str = "bytes", vocab_size: Size = 4096
    ):
        super().__init__(name, loading)
        self.length, self.wanted, self.vocab_size = length, tokenizer, vocab_size
        self.tokenizer: Tokenizer | None = None
        self.splits: dict[str, PackedRows] | None = None

    @abstractmethod
    def load(self) -> dict[str, Documents]:
        """Read the documents of train, val and test, as bytes; raises UserError naming the file that is wrong."""

    def setup(self, stage: str | None = None) -> None:
        """Read and tokenise the documents, once."""
        if self.splits is not None:
            return
        documents = self.load()
        for split in SPLITS:
            if not len(documents[split]):
                raise UserError(f"{self.name} has no {split} text", do="add text, or raise data.val_fraction")
        self.tokenizer = make_tokenizer(self.wanted, self.vocab_size, documents["train"])
        self.bytes = {split: int(documents[split].sizes.sum()) for split in SPLITS}
        tokens = {split: self.tokenizer.tokenise(documents[split]) for split in SPLITS}
        self.tokens = {split: int(tokens[split].sizes.sum()) for split in SPLITS}
        limit = self.loading.limit
        self.splits = {s: PackedRows(tokens[s], self.length, self.tokenizer.end, limit) for s in SPLITS}

    def samples(self, split: str) -> int:
        """Rows of a split."""
        return len(self.splits[split])

    def load_batch(self, split: str, epoch: int, positions: np.ndarray) -> Batch:
        """Rows as `PackedRows.take` gives them; training rows are cut at other places in every epoch."""
        rows = self.splits[split]
        phase = int(hashed(self.loading.seed, 1, epoch)[0] % np.uint64(rows.pairs)) if split == "train" else 0
        return rows.take(positions, phase)

    def describe(self) -> dict[str, object]:
        """See `TextModule.describe`: counts are rows; bytes and tokens say how much text each split holds."""
        if self.splits is None:
            self.prepare_data()
            self.setup()
        return {
            **self.told(),
            "task": "language_modelling",
            "tokenizer": self.tokenizer,
            "vocab_size": self.tokenizer.vocab_size,
            "length": self.length,
            "bytes": self.bytes,
            "tokens": self.tokens,
            "model_size": "micro" if self.tokens["train"] <= MICRO else "130m",
        }

    def verify(self) -> None:
        """Read and check everything again, from the files; raises UserError naming the file that is wrong."""
        self.prepare_data()
        self.load()
