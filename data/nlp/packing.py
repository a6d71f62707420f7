"""Documents packed into rows of one length: no token is dropped, none is scored from another document's text."""

from __future__ import annotations

import numpy as np
import torch

from .documents import Documents

IGNORED = -100
PADDING = -1


class PackedRows:
    """Rows of a fixed length cut from documents that stand one behind another.

    A document of n tokens gives n + 1 pairs of (input, label): (end mark, first token), (first, second), ..., (last, end
    mark). So each of its tokens is predicted once, from its own document alone. The pairs of all documents are cut into
    rows; a document that does not fit goes on in the next row, where what came before it is not seen. What is left of
    the last row is padding.

    Args:
        documents: token numbers; none of the documents empty.
        length: pairs in a row.
        end: number of the end mark.
        limit: use no more than this many rows.
    """

    def __init__(self, documents: Documents, length: int, end: int, limit: int | None = None):
        self.documents, self.length, self.end = documents, length, end
        self.bounds = np.concatenate([[0], np.cumsum(documents.sizes + 1)]).astype(np.int64)
        self.pairs = int(self.bounds[-1])
        self.rows = -(-self.pairs // length)
        if limit is not None and limit < self.rows:
            self.rows, self.pairs = limit, limit * length

    def __len__(self) -> int:
        return self.rows

    def take(self, positions: np.ndarray, phase: int = 0) -> dict[str, torch.Tensor]:
        """Some rows.

        Args:
            positions: numbers of rows, (batch,).
            phase: pairs to begin later, so that rows are cut elsewhere; what stood before them comes last.

        Returns:
            input_ids and labels, int64 (batch, length), and seq_idx, int32 (batch, length): the number of the document
            within the row. Padding has the end mark, label -100 and seq_idx -1.
        """
        shape = (len(positions), self.length)
        inputs = np.full(shape, self.end, np.int64)
        labels = np.full(shape, IGNORED, np.int64)
        seq_idx = np.full(shape, PADDING, np.int32)
        for row, position in enumerate(positions):
            start = int(position) * self.length
            self._fill(inputs[row], labels[row], seq_idx[row], start, phase)
        parts = {"input_ids": inputs, "labels": labels, "seq_idx": seq_idx}
        return {name: torch.from_numpy(part) for name, part in parts.items()}

    def _fill(self, inputs: np.ndarray, labels: np.ndarray, seq_idx: np.ndarray, start: int, phase: int) -> None:
        left = min(self.length, self.pairs - start)
        at, number, pair = 0, 0, (start + phase) % self.pairs
        document = int(np.searchsorted(self.bounds, pair, "right")) - 1
        while at < left:
            within = pair - int(self.bounds[document])
            stop = min(int(self.bounds[document + 1]), self.pairs)
            count = min(left - at, stop - pair)
            marked = self._marked(document, within, count + 1)
            inputs[at : at + count], labels[at : at + count] = marked[:-1], marked[1:]
            seq_idx[at : at + count] = number
            at, number, pair = at + count, number + 1, pair + count
            if pair == self.pairs:
                pair, document = 0, 0
            else:
                document += 1

    def _marked(self, document: int, start: int, count: int) -> np.ndarray:
        """`count` elements from `start` on of a document with an end mark on both sides."""
        tokens = self.documents[document]
        marked = np.full(count, self.end, np.int64)
        first, last = max(start - 1, 0), min(start - 1 + count, len(tokens))
        offset = first + 1 - start
        marked[offset : offset + last - first] = tokens[first:last]
        return marked
