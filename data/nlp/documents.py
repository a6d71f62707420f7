"""Documents as arrays: bytes or token numbers, in memory or memory-mapped."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from ...core.errors import UserError
from ..randomness import hashed

PIECE = 1 << 20


@dataclass(frozen=True)
class Documents:
    """Documents that lie in a few arrays.

    Args:
        shards: one-dimensional integer arrays (UTF-8 bytes as uint8, or token numbers); may be memory-mapped.
        table: int64 of shape (documents, 3): the shard, the first element and the one after the last.
    """

    shards: Sequence[np.ndarray]
    table: np.ndarray

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> np.ndarray:
        shard, start, stop = self.table[index].tolist()
        return self.shards[shard][start:stop]

    @property
    def sizes(self) -> np.ndarray:
        """Elements of each document, int64 (documents,)."""
        return self.table[:, 2] - self.table[:, 1]

    def take(self, positions: np.ndarray) -> Documents:
        """The documents at these positions."""
        return Documents(self.shards, self.table[positions])

    def pieces(self, size: int = PIECE) -> Iterator[tuple[int, str]]:
        """(document, text) of every piece of the documents of at most about `size` bytes, cut after a line's end."""
        for index in range(len(self)):
            content = self[index]
            start = 0
            while start < len(content):
                stop = _cut(content, start, size)
                yield index, bytes(content[start:stop]).decode(errors="replace")
                start = stop

    def sha256(self) -> str:
        """A checksum of the documents' content and bounds."""
        digest = hashlib.sha256(self.sizes.tobytes())
        for index in range(len(self)):
            digest.update(np.ascontiguousarray(self[index]))
        return digest.hexdigest()


def from_texts(texts: Iterable[str | bytes]) -> Documents:
    """Documents in memory; empty ones are left out."""
    contents = [text.encode() if isinstance(text, str) else text for text in texts]
    contents = [content for content in contents if content]
    stops = np.cumsum([len(content) for content in contents], dtype=np.int64)
    starts = np.concatenate([[0], stops[:-1]]).astype(np.int64) if contents else stops
    table = np.stack([np.zeros(len(contents), np.int64), starts, stops], 1)
    return Documents([np.frombuffer(b"".join(contents), np.uint8)], table)


def from_files(paths: Sequence[Path], separator: str | None = None) -> Documents:
    """Files, memory-mapped: each a document, or several that a separator stands between.

    Raises:
        UserError: a file cannot be read.
    """
    shards, rows = [], []
    for path in paths:
        try:
            size = path.stat().st_size
            shard = np.memmap(path, np.uint8, "r") if size else np.empty(0, np.uint8)
        except OSError as error:
            raise UserError(f"Cannot read {path}: {error.strerror or error}") from error
        for start, stop in _bounds(shard, separator):
            if stop > start:
                rows.append((len(shards), start, stop))
        shards.append(shard)
    return Documents(shards, np.array(rows, np.int64).reshape(-1, 3))


def divided(documents: Documents, fractions: tuple[float, ...], seed: int) -> list[Documents]:
    """Parts of the documents: the rest first, then one of each fraction.

    Ten documents or more are dealt out whole, in the order of a hash of their position; of fewer, each is cut into
    stretches, the first the longest.
    """
    if len(documents) < 10:
        return _stretches(documents, fractions)
    order = np.argsort(hashed(seed, np.arange(len(documents))), kind="stable")
    ends = np.cumsum(documents.sizes[order]) / documents.sizes.sum()
    bounds = np.searchsorted(ends, np.cumsum(fractions), side="left") + 1
    bounds = np.minimum(bounds, len(documents) - 1)
    pieces = np.split(order, bounds)
    return [documents.take(np.sort(piece)) for piece in (pieces[-1], *pieces[:-1])]


def _stretches(documents: Documents, fractions: tuple[float, ...]) -> list[Documents]:
    shares = np.cumsum([0.0, 1 - sum(fractions), *fractions])
    parts = []
    for low, high in pairwise(shares):
        table = documents.table.copy()
        table[:, 1] = documents.table[:, 1] + np.round(low * documents.sizes).astype(np.int64)
        table[:, 2] = documents.table[:, 1] + np.round(high * documents.sizes).astype(np.int64)
        parts.append(Documents(documents.shards, table[table[:, 2] > table[:, 1]]))
    return parts


def _cut(content: np.ndarray, start: int, size: int) -> int:
    """The end of the piece that begins at `start`: after a line's end, else before a character's first byte."""
    stop = start + size
    if stop >= len(content):
        return len(content)
    lines = np.flatnonzero(content[start:stop] == ord("\n"))
    if len(lines):
        return start + int(lines[-1]) + 1
    while stop > start + 1 and content[stop] & 0xC0 == 0x80:
        stop -= 1
    return stop


def _bounds(shard: np.ndarray, separator: str | None) -> Iterator[tuple[int, int]]:
    if separator is None or not len(shard):
        yield 0, len(shard)
        return
    mark, start = separator.encode(), 0
    while (at := _find(shard, mark, start)) >= 0:
        yield start, at
        start = at + len(mark)
    yield start, len(shard)


def _find(shard: np.ndarray, mark: bytes, start: int) -> int:
    """Where `mark` stands first from `start` on; -1 where it does not."""
    if isinstance(shard, np.memmap):
        return shard._mmap.find(mark, start)
    return shard.tobytes().find(mark, start)
