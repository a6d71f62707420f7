"""Documents as arrays: bytes or token numbers, in memory or memory-mapped."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from ..randomness import hashed
from .decoding import text_of

log = logging.getLogger(__name__)

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


def from_files(paths: Sequence[Path], separator: str | None = None, encoding: str | None = None) -> Documents:
    """Text files: each a document, or several that a separator stands between.

    Files of UTF-8 with line feeds are memory-mapped; others are decoded into memory, see `text_of`.

    Raises:
        UserError: a file cannot be read, or is no text.
    """
    shards, rows = [], []
    for path in paths:
        shard = text_of(path, encoding)
        for start, stop in _bounds(shard, separator):
            if stop > start:
                rows.append((len(shards), start, stop))
        shards.append(shard)
    return Documents(shards, np.array(rows, np.int64).reshape(-1, 3))


def divided(documents: Documents, fractions: tuple[float, ...], seed: int) -> list[Documents]:
    """Parts of the documents: the rest first, then one of each fraction.

    Ten documents or more are dealt out whole, in the order of a hash of their position. What is too long for that, a part's
    share or more, is cut into stretches, the first the longest; so is each of fewer documents. Equal documents count as one,
    so that no part holds what another one does.
    """
    first, sizes = _first_equal(documents), documents.sizes
    together = np.bincount(first, sizes, len(documents))
    least = min(*fractions, 1 - sum(fractions)) * sizes.sum()
    cut = (together >= least)[first] if len(documents) >= 10 else np.ones(len(documents), bool)
    stretches = _stretches(documents.take(np.flatnonzero(cut)), fractions)
    pieces = _dealt(np.flatnonzero(~cut), first, sizes, fractions, seed)
    if copies := int((first != np.arange(len(first))).sum()):
        log.info("%d of %d documents are copies of others: copies stay in one part", copies, len(documents))
    return [
        Documents(documents.shards, np.concatenate([documents.table[piece], stretch.table]))
        for piece, stretch in zip(pieces, stretches, strict=True)
    ]


def _dealt(
    whole: np.ndarray, first: np.ndarray, sizes: np.ndarray, fractions: tuple[float, ...], seed: int
) -> list[np.ndarray]:
    """The documents `whole` in parts, equal ones in the same part; arguments as in `divided`."""
    order = whole[np.lexsort((whole, first[whole], hashed(seed, first[whole])))]
    ends = np.cumsum(sizes[order]) / max(sizes[order].sum(), 1)
    bounds = np.searchsorted(ends, np.cumsum(fractions), side="left") + 1
    begins = np.flatnonzero(np.diff(first[order], prepend=-1)) if len(order) else np.zeros(1, np.int64)
    # not between equal documents, and something is left for the rest
    bounds = [int(begins[min(np.searchsorted(begins, bound), len(begins) - 1)]) for bound in bounds]
    pieces = np.split(order, bounds)
    return [np.sort(piece) for piece in (pieces[-1], *pieces[:-1])]


def _first_equal(documents: Documents) -> np.ndarray:
    """The position of the first document of the same content, int64 (documents,)."""
    found, sizes = np.arange(len(documents)), documents.sizes
    _, kind, counts = np.unique(sizes, return_inverse=True, return_counts=True)
    seen: dict[bytes, int] = {}
    for index in np.flatnonzero(counts[kind] > 1).tolist():
        content = np.ascontiguousarray(documents[index])
        found[index] = seen.setdefault(hashlib.sha256(content).digest(), index)
    return found


def _stretches(documents: Documents, fractions: tuple[float, ...]) -> list[Documents]:
    shares = np.cumsum([0.0, 1 - sum(fractions), *fractions])
    cuts = np.round(shares[:, None] * documents.sizes).astype(np.int64)
    cuts = [[_character(documents[i], int(cut)) for i, cut in enumerate(row)] for row in cuts]
    parts = []
    for low, high in pairwise(np.array(cuts, np.int64).reshape(len(shares), -1)):
        table = documents.table.copy()
        table[:, 1], table[:, 2] = documents.table[:, 1] + low, documents.table[:, 1] + high
        parts.append(Documents(documents.shards, table[table[:, 2] > table[:, 1]]))
    return parts


def _character(content: np.ndarray, place: int) -> int:
    """The place, or the one before it where a character begins."""
    while 0 < place < len(content) and content[place] & 0xC0 == 0x80:
        place -= 1
    return place


def _cut(content: np.ndarray, start: int, size: int) -> int:
    """The end of the piece that begins at `start`: after a line's end, else before a character's first byte."""
    stop = start + size
    if stop >= len(content):
        return len(content)
    lines = np.flatnonzero(content[start:stop] == ord("\n"))
    if len(lines):
        return start + int(lines[-1]) + 1
    return max(_character(content, stop), start + 1)


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
