"""Histories read without most of their padding: in tables of events most are short, and rows of one each mostly padding.

Several share a row where a model can read on from any event (`Packed`); for any other they are read with those of about their
length (`encode`).
"""

from __future__ import annotations

from collections.abc import Mapping
from heapq import heapify, heapreplace
from typing import Any

import torch
from torch import Tensor

from ...core.packing import PADDING
from .models.sequential import Recommender

PARTS = 8  # a history of Amazon's has 9 events on average, the longest of 256 has 50: an eighth of them needs such rows


class Packed:
    """Where each history of a batch lies when several share a row as wide as the longest.

    Args:
        lengths: (batch,) int64, events of each history, which begins its row.

    width: events of a row. seq_idx: (rows, width) int32, the history of each event, PADDING where there is none.
    """

    def __init__(self, lengths: Tensor):
        counts = lengths.tolist()
        self.width = max(counts, default=0)
        # the longest first, each into the emptiest row (best with few kinds of lengths, and a heap finds it)
        filled: list[tuple[int, int]] = []
        begins = [0] * len(counts)
        for history in sorted(range(len(counts)), key=counts.__getitem__, reverse=True):
            length = counts[history]
            if filled and filled[0][0] + length <= self.width:
                used, row = filled[0]
                heapreplace(filled, (used + length, row))
            else:
                used, row = 0, len(filled)
                filled.append((length, row))
                heapify(filled)
            begins[history] = row * self.width + used
        self.rows = len(filled)
        place = torch.arange(self.width, device=lengths.device)
        self._real = place < lengths[:, None]
        begin = torch.tensor(begins, dtype=torch.int64, device=lengths.device)
        self._at = (begin[:, None] + place)[self._real]
        owner = torch.arange(len(counts), dtype=torch.int32, device=lengths.device)[:, None].expand_as(self._real)
        self.seq_idx = self._put(owner, PADDING)

    def together(self, x: Any) -> Any:
        """(batch, length, ...) to (rows, width, ...), 0 at padding; of a mapping each of its values, None as it is."""
        if isinstance(x, Mapping):
            return {name: self.together(each) for name, each in x.items()}
        return None if x is None else self._put(x[:, : self.width], 0)

    def apart(self, rows: Tensor) -> Tensor:
        """(rows, width, ...) to (events, ...), those of the batch's first history first."""
        return rows.flatten(0, 1)[self._at]

    def _put(self, x: Tensor, fill: int) -> Tensor:
        found = x.new_full((self.rows * self.width, *x.shape[2:]), fill)
        return torch.index_put(found, (self._at,), x[self._real]).unflatten(0, (self.rows, self.width))


def encode(
    model: Recommender, items: Tensor, times: Tensor | None = None, features: Mapping[str, Tensor] | None = None
) -> Tensor:
    """As model.encode, (batch, channels), the histories sorted by length and each part of them cut to its longest.

    Args:
        items: (batch, length) int64, a history a row, 0 at padding. times, features: of the events, as of the model.
    """
    if model.reads_padding:
        return model.encode(items, times=times, features=features)
    by_length = (items > 0).sum(1).argsort(descending=True)
    found = []
    for rows in by_length.chunk(PARTS):
        filled = (items[rows] > 0).any(0).nonzero()
        places = slice(int(filled[0]), int(filled[-1]) + 1) if len(filled) else slice(0, 1)
        beside = None if features is None else {name: each[rows, places] for name, each in features.items()}
        found.append(
            model.encode(items[rows, places], times=None if times is None else times[rows, places], features=beside)
        )
    return torch.cat(found)[by_length.argsort()]
