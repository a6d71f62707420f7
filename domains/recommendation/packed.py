"""Histories put one behind the other in few rows: in tables of events most are short, and rows of one each mostly padding."""

from __future__ import annotations

from collections.abc import Mapping
from heapq import heapify, heapreplace
from typing import Any

import torch
from torch import Tensor

from ...core.packing import PADDING


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
        return found.index_put((self._at,), x[self._real]).unflatten(0, (self.rows, self.width))
