"""Streams from the Hugging Face hub, or from a folder of files that its library reads; needs the extra `hub`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from ...core.errors import UserError
from ...core.ranges import Count, Length, Size, checked
from ..loading import EpochLoader, Loading
from ..module import Description
from ..randomness import hashed
from .documents import from_texts
from .packing import PackedRows
from .sources import HUB
from .texts import Batch, TokenisedData


class Hub(TokenisedData):
    """A data set that is read while it is trained on, packed into rows; it need not fit on the disk.

    Validation and test rows are kept in memory; without splits of their own they are made of the training stream's first
    documents, which are then not trained on. An epoch is a number of batches; the next epoch goes on in the stream, and
    when the stream ends it begins again. A resumed run goes on with the same batches.

    Args:
        path: name on the hub, or a folder of files (.jsonl, .parquet, .csv, .txt, ...).
        subset: the data set's configuration.
        column: which column holds the text.
        train_split, val_split, test_split: names of splits; None: made of the training split's beginning.
        batches: in an epoch.
        val_rows, test_rows: how many rows to validate and test on.
        buffer: so many rows wait, and each batch draws from them; 0: in the stream's order.
        length, name: see `PythonDocs`.
        tokenizer: bytes, or the path of a tokenizer.json.
        loading: how batches are made; a stream is read by one process, the one that trains.
    """

    source = HUB

    @checked(group="data")
    def __init__(
        self,
        path: str | None = None,
        subset: str | None = None,
        column: str = "text",
        train_split: str = "train",
        val_split: str | None = None,
        test_split: str | None = None,
        batches: Size = 1000,
        val_rows: Size = 256,
        test_rows: Size = 256,
        buffer: Count = 256,
        length: Length = 1024,
        tokenizer: str = "bytes",
        loading: Loading = Loading(batch_size=16),
        name: str = "hub",
    ):
        super().__init__(name, loading, length, tokenizer, 0)
        if not path:
            raise UserError("hub needs the name of a data set, or a folder", do="data.path=allenai/c4 data.subset=en")
        if tokenizer == "bpe":
            raise UserError(
                "a stream's byte-pair encoding cannot be trained on it", given="data.tokenizer=bpe",
                allowed="bytes, or the path of a tokenizer.json",
            )  # fmt: skip
        if loading.workers or loading.limit is not None:
            raise UserError(
                "a stream is read by the process that trains, and has no end",
                given=f"data.workers={loading.workers} data.limit={loading.limit}", allowed="data.workers=0 data.limit=null",
                do="data.batches, data.val_rows and data.test_rows say how much is read",
            )  # fmt: skip
        self.path, self.subset, self.column, self.train_split = path, subset, column, train_split
        self.held = {"val": (val_split, val_rows), "test": (test_split, test_rows)}
        self.batches, self.buffer = batches, buffer
        self.rows: dict[str, PackedRows] = {}
        self.skipped = 0

    def setup(self, stage: str | None = None) -> None:
        """Read the validation and test rows, once."""
        if self.rows:
            return
        self.tokenizer_for(from_texts([]))
        own = iter(self.stream(self.train_split))
        for split, (name, count) in self.held.items():
            texts, size = [], 0
            for record in own if name is None else self.stream(name):
                texts.append(self._text(record))
                size += len(self.tokenizer.encode(texts[-1])) + 1
                self.skipped += name is None
                if size >= count * self.length:
                    break
            if not any(texts):
                raise UserError(f"{self.path} has no text for {split}", given=f"split {name or self.train_split}")
            packed = self.tokenizer.tokenise(from_texts(texts))
            self.rows[split] = PackedRows(packed, self.length, self.tokenizer.end, count)

    def samples(self, split: str) -> int:
        """Rows of a split; of the training split, in an epoch."""
        return self.batches * self.loading.batch_size if split == "train" else len(self.rows[split])

    def load_batch(self, split: str, epoch: int, positions: np.ndarray) -> Batch:
        """Validation or test rows as `PackedRows.take` gives them."""
        return self.rows[split].take(positions)

    def loader(self, split: str) -> EpochLoader | StreamLoader:
        """The loader of a split; the training split's reads the stream."""
        if split != "train":
            return super().loader(split)
        self.setup()
        rank, ranks = (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)

        def encoded() -> Any:
            stream = self.stream(self.train_split).skip(self.skipped)
            return stream if ranks == 1 else _library().distributed.split_dataset_by_node(stream, rank, ranks)

        def encode(record: dict[str, Any]) -> list[int]:
            return self.tokenizer.encode(self._text(record))

        rows = StreamRows(encoded, encode, self.length, self.tokenizer.end)
        return StreamLoader(rows, self.loading.batch_size, self.batches, self.loading.seed, self.buffer)

    def stream(self, split: str) -> Any:
        """The records of a split, as the library's IterableDataset.

        Raises:
            UserError: the library is not installed, or has no such data set or split.
        """
        library = _library()
        try:
            return library.load_dataset(self.path, self.subset, split=split, streaming=True)
        except Exception as error:  # the library raises many kinds
            raise UserError(
                f"{self.path} cannot be read: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
                given=f"data.path={self.path} data.subset={self.subset}, split {split}",
            ) from error

    def describe(self) -> Description:
        """See `DataModule.describe`."""
        for_model = {"task": "language_modelling", "model_size": "130m"}
        return self.described(for_model=for_model, name=f"{self.name} {self.path}", source=self.path)

    def verify(self) -> None:
        """Read the beginning again."""
        self.rows, self.skipped = {}, 0
        self.setup()

    def _text(self, record: dict[str, Any]) -> str:
        if self.column not in record:
            raise UserError(
                f"{self.path} has no such column", given=f"data.column={self.column}", allowed=sorted(record)
            )
        return record[self.column] or ""


class StreamRows:
    """Rows packed from a stream of records, as `PackedRows` packs documents, with a state.

    Args:
        open_stream: gives the stream from its beginning; it has `state_dict`, `load_state_dict` and `set_epoch`.
        encode: token numbers of a record.
        length: pairs in a row. end: number of the end mark.
    """

    def __init__(self, open_stream: Callable[[], Any], encode: Callable[[Any], list[int]], length: int, end: int):
        self.open_stream, self.encode, self.length, self.end = open_stream, encode, length, end
        self.passes = 0
        self._stream: Any = None
        self._records: Iterator[Any] | None = None
        self._left = np.empty(0, np.int64)

    def next(self) -> np.ndarray:
        """The next row: inputs, labels and document numbers, int64 (3, length)."""
        row, at, number = np.empty((3, self.length), np.int64), 0, 0
        while at < self.length:
            if len(self._left) < 2:
                self._left = np.array([self.end, *self._next_document(), self.end], np.int64)
            count = min(self.length - at, len(self._left) - 1)
            row[0, at : at + count], row[1, at : at + count] = self._left[:count], self._left[1 : count + 1]
            row[2, at : at + count] = number
            self._left, at, number = self._left[count:], at + count, number + 1
        return row

    def state_dict(self) -> dict[str, Any]:
        """Where the stream is, and what is left of the document in hand."""
        stream = self._stream.state_dict() if self._stream is not None else None
        return {"stream": stream, "passes": self.passes, "left": torch.from_numpy(self._left.copy())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the state was saved."""
        self.passes, self._left = state["passes"], state["left"].numpy()
        self._stream = self._records = None
        if state["stream"] is not None:
            self._open()
            self._stream.load_state_dict(state["stream"])

    def _next_document(self) -> list[int]:
        for _ in range(2):
            if self._stream is None:
                self._open()
            if self._records is None:
                self._records = iter(self._stream)
            for record in self._records:
                if tokens := self.encode(record):
                    return tokens
            self.passes += 1
            self._stream = self._records = None
        raise UserError("the training stream holds no text beyond the validation and test rows")

    def _open(self) -> None:
        self._stream = self.open_stream()
        self._stream.set_epoch(self.passes)


class StreamLoader:
    """Batches from rows of a stream, a fixed number an epoch, with a state that Lightning saves and restores.

    Args:
        rows: where rows come from.
        batch_size: rows in a batch. batches: in an epoch.
        seed: rules which of the waiting rows come next.
        buffer: how many rows wait; 0: none.
    """

    def __init__(self, rows: StreamRows, batch_size: int, batches: int, seed: int, buffer: int):
        self.rows, self.batch_size, self.batches, self.seed, self.buffer = rows, batch_size, batches, seed, buffer
        self._waiting: list[np.ndarray] = []
        self._read = self._drawn = 0

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[Batch]:
        if self._read >= self.batches:
            self._read = 0
        while self._read < self.batches:
            rows = np.stack([self._draw() for _ in range(self.batch_size)])
            self._read += 1
            inputs, labels, numbers = torch.from_numpy(rows).unbind(1)
            yield {"input_ids": inputs, "labels": labels, "seq_idx": numbers.int()}

    def state_dict(self) -> dict[str, Any]:
        """The batches read in this epoch, the rows that wait, and the stream's place."""
        waiting = torch.from_numpy(np.stack(self._waiting)) if self._waiting else None
        return {"batch": self._read, "drawn": self._drawn, "waiting": waiting, "rows": self.rows.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the batches that were read when the state was saved."""
        self._read, self._drawn = state["batch"], state["drawn"]
        self._waiting = [] if state["waiting"] is None else list(state["waiting"].numpy())
        self.rows.load_state_dict(state["rows"])

    def _draw(self) -> np.ndarray:
        self._drawn += 1
        if not self.buffer:
            return self.rows.next()
        while len(self._waiting) < self.buffer:
            self._waiting.append(self.rows.next())
        place = int(hashed(self.seed, self._drawn)[0] % np.uint64(self.buffer))
        row, self._waiting[place] = self._waiting[place], self._waiting[-1]
        self._waiting.pop()
        return row


def _library() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise UserError("The datasets library is not installed", do="pip install 'polymamba[hub]'") from error
    datasets.disable_progress_bars()
    return datasets
