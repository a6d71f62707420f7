"""What the data sets of text share: the tokenizer that a run keeps; and of those for language modelling, packed rows."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...core.errors import UserError
from ...core.ranges import Length, Size, checked
from ..loading import Loading
from ..module import DataModule, Description
from ..randomness import hashed
from .documents import Documents, from_texts
from .packing import PackedRows
from .tokenizer import Tokenizer, load_tokenizer, make_tokenizer

TOKENIZER = "tokenizer.json"
# up to this many tokens of training text, the data set asks for the micro model
MICRO = 20_000_000
Batch = dict[str, torch.Tensor]


class TokenisedData(DataModule):
    """Base of the data modules that make token numbers of text. A trained model keeps the tokenizer, as `tokenizer.json`.

    Args:
        name: the data set's name in results.
        loading: how batches are made.
        length: tokens of a sample.
        tokenizer: bytes, bpe (trained on the training documents), or the path of a tokenizer.json.
        vocab_size: tokens of the byte-pair encoding.
    """

    @checked(group="data")
    def __init__(self, name: str, loading: Loading, length: Size, tokenizer: str, vocab_size: Size):
        super().__init__(name, loading)
        self.length, self.tokenizer_name, self.vocab_size = length, tokenizer, vocab_size
        self.tokenizer: Tokenizer | None = None

    def tokenizer_for(self, training: Documents) -> Tokenizer:
        """The tokenizer: the one that was restored, else one made of the training documents."""
        if self.tokenizer is None and self.tokenizer_name == "bpe" and not len(training):
            raise UserError("there is no training text to make a byte-pair encoding of", do="data.tokenizer=bytes")
        if self.tokenizer is None:
            self.tokenizer = make_tokenizer(self.tokenizer_name, self.vocab_size, training)
        return self.tokenizer

    def kept(self) -> Mapping[str, Any]:
        """See `DataModule.kept`: the tokenizer."""
        if self.tokenizer is None:
            self.read()
        return {"tokenizer": self.tokenizer}

    def keep(self, folder: Path) -> None:
        """See `DataModule.keep`."""
        folder.mkdir(parents=True, exist_ok=True)
        self.kept()["tokenizer"].save(folder / TOKENIZER)

    def restore(self, folder: Path) -> None:
        """See `DataModule.restore`."""
        if (folder / TOKENIZER).is_file():
            self.tokenizer = load_tokenizer(folder / TOKENIZER)

    def described(self, **more: Any) -> Description:
        """See `DataModule.described`; for_model: what is added to the sizes that every data set of text has."""
        self.read()
        sizes = {"vocab_size": self.tokenizer.vocab_size, "length": self.length}
        shape = f"{self.length:,} tokens ({self.tokenizer.name}, {self.tokenizer.vocab_size:,})"
        usual = {"shape": shape, "values": self.length, "length": self.length, "resized_by": "data.length"}
        return super().described(**{**usual, **more, "for_model": {**sizes, **more["for_model"]}})

    @classmethod
    def reading(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """See `DataModule.reading`: how long samples are, and by which tokenizer."""
        kept = {key: settings[key] for key in ("length", "tokenizer", "vocab_size") if settings.get(key) is not None}
        return {**super().reading(settings), **kept}


class TextData(TokenisedData):
    """Base of the data modules for language modelling: a subclass says where the documents come from, with `load()`.

    Batches are dicts as `PackedRows.take` gives them. Arguments: see `TokenisedData`; length: tokens in a row.
    """

    @checked(group="data")
    def __init__(
        self, name: str, loading: Loading, length: Length = 512, tokenizer: str = "bytes", vocab_size: Size = 4096
    ):
        super().__init__(name, loading, length, tokenizer, vocab_size)
        self.splits: dict[str, PackedRows] | None = None

    @abstractmethod
    def load(self) -> dict[str, Documents]:
        """Read the documents of train, val and test, as bytes; raises UserError naming the file that is wrong."""

    def setup(self, stage: str | None = None) -> None:
        """Read and tokenise the documents, once."""
        if self.splits is not None:
            return
        documents = self.load()
        for split, part in documents.items():
            if not len(part):
                raise UserError(f"{self.name} has no {split} text", do="add text, or raise data.val_fraction")
        tokenizer = self.tokenizer_for(documents.get("train", from_texts([])))
        tokens = {split: tokenizer.tokenise(part) for split, part in documents.items()}
        self.tokens = {split: int(part.sizes.sum()) for split, part in tokens.items()}
        limit = self.loading.limit
        self.splits = {split: PackedRows(part, self.length, tokenizer.end, limit) for split, part in tokens.items()}

    def samples(self, split: str) -> int:
        """Rows of a split."""
        return len(self.splits.get(split, ()))

    def load_batch(self, split: str, epoch: int, positions: np.ndarray) -> Batch:
        """Rows as `PackedRows.take` gives them; training rows are cut at other places in every epoch."""
        rows = self.splits[split]
        phase = int(hashed(self.loading.seed, 1, epoch)[0] % np.uint64(rows.pairs)) if split == "train" else 0
        return rows.take(positions, phase)

    def describe(self) -> Description:
        """See `DataModule.describe`: counts are rows."""
        self.read()
        size = "micro" if self.tokens.get("train", 0) <= MICRO else "130m"
        return self.described(for_model={"task": "language_modelling", "model_size": size})
