"""Sequences of a batch, each in a row of its own: for layers that know neither padding nor packing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ....core.errors import UserError
from ....core.packing import places, seq_idx_from_lengths

if TYPE_CHECKING:
    from .sequential import Events


class Rows:
    """Takes a batch's sequences apart and puts them together again.

    Args:
        number: (batch, length) int64, the sequence of each event in its row, counted from 0, -1 at padding.
        width: events of a row; None: those of the longest sequence.

    lengths: (sequences,) int64. first, last: (batch,) int64, the rows' first and last sequences. empty: (batch,), rows without.
    """

    def __init__(self, number: Tensor, width: int | None = None):
        self.real = number >= 0
        count = number.amax(1) + 1 if number.shape[1] else number.new_zeros(number.shape[0])
        self.first = count.cumsum(0) - count
        self.last, self.empty = self.first + count - 1, count == 0
        self._sequence = (self.first[:, None] + number)[self.real]
        self._place = places(number)[self.real]
        self.lengths = torch.bincount(self._sequence, minlength=int(count.sum()))
        longest = int(self.lengths.max()) if self.lengths.numel() else 0
        self.width = longest if width is None else width

    @property
    def seq_idx(self) -> Tensor:
        """(sequences, width) int32, as mixers take it: 0 at events, -1 behind them."""
        return seq_idx_from_lengths(self.lengths, self.width)

    def apart(self, x: Tensor) -> Tensor:
        """(batch, length, ...) to (sequences, width, ...), zero behind each sequence."""
        rows = x.new_zeros(len(self.lengths), self.width, *x.shape[2:])
        return torch.index_put(rows, (self._sequence, self._place), x[self.real])

    def together(self, rows: Tensor) -> Tensor:
        """(sequences, width, ...) back to (batch, length, ...), zero at padding."""
        x = rows.new_zeros(*self.real.shape, *rows.shape[2:])
        return torch.index_put(x, (self.real,), rows[self._sequence, self._place])


def check_padding(number: Tensor, side: str) -> None:
    """Raise a UserError where a row is not one history padded on that side, as the published forms that read padding want it.

    Args:
        number: (batch, length) int64, as of Rows; on a GPU, where asking would wait for it, nothing is checked.
    """
    if number.device.type != "cpu":
        return
    real = number >= 0 if side == "right" else (number >= 0).flip(1)
    if bool((number > 0).any()) or bool((real[:, 1:] & ~real[:, :-1]).any()):
        raise UserError(
            f"the published form reads rows of one history, padded on the {side}", given="another padding, or packing",
            do="compat=corrected, which reads any",
        )  # fmt: skip


def filled_up(events: Events, length: int) -> Events:
    """The same events in rows of `length` at least, as the published forms that read padding have them: item 0 behind.

    Raises:
        UserError: see check_padding.
    """
    check_padding(events.number, "right")
    more = length - events.items.shape[1]
    if more <= 0:
        return events

    def behind(x: Tensor, value: int = 0) -> Tensor:
        return torch.cat([x, x.new_full((len(x), more, *x.shape[2:]), value)], 1)

    return events._replace(
        items=behind(events.items), number=behind(events.number, -1), place=behind(events.place),
        seq_idx=None if events.seq_idx is None else behind(events.seq_idx, -1),
        times=None if events.times is None else behind(events.times),
        features={name: behind(each) for name, each in events.features.items()},
    )  # fmt: skip
