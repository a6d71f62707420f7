"""GRU4Rec (arXiv 1511.06939, in the form of 1606.08117): a GRU over the items' embeddings; names and start are RecBole's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from ....core.errors import check_choice
from ....core.precision import as_given
from ....core.ranges import Depth, Rate, Size, checked
from .rows import Rows
from .sequential import SIZES, Events, SequentialModel, from_describe


class GRU4Rec(SequentialModel):
    """GRU4Rec.

    Args:
        items, length, behaviours, features: see SequentialModel; padded on the right in RecBole.
        channels, inner, layers: of the embeddings and the hidden states; of the GRU; its layers.
        dropout: of the embeddings.
    """

    def __init__(
        self,
        items: Size,
        length: Size,
        channels: Size = 64,
        inner: Size = 128,
        layers: Depth = 1,
        dropout: Rate = 0.3,
        **inputs: Any,
    ):
        super().__init__(items, length, channels, **inputs)
        self.dropout = nn.Dropout(dropout)
        self.gru_layers = GRU(channels, inner, layers, bias=False, batch_first=True)
        self.dense = nn.Linear(inner, channels)
        nn.init.xavier_normal_(self.item_embedding.weight)
        with torch.no_grad():
            self.item_embedding.weight[0] = 0
        for weight in self.gru_layers.parameters():
            nn.init.xavier_uniform_(weight)

    def run(self, events: Events, states: tuple | None) -> tuple[Tensor, tuple]:
        """The one state: (batch, layers, inner) of the GRU."""
        x = self.dropout(self.embed(events))
        state = x.new_zeros(len(x), self.gru_layers.num_layers, self.gru_layers.hidden_size)
        y, state = run_gru(self.gru_layers, x, events, state if states is None else states[0])
        return self.dense(y), (state,)


class GRU(nn.GRU):
    """PyTorch's in the precision of its weights: on CUDA autocast runs it in float16, also where bfloat16 is asked for."""

    def forward(
        self, x: Tensor | PackedSequence, state: Tensor | None = None
    ) -> tuple[Tensor | PackedSequence, Tensor]:
        weight = self.weight_ih_l0
        with as_given(weight):
            return super().forward(x.to(weight.dtype), None if state is None else state.to(weight.dtype))


def run_gru(gru: nn.GRU, x: Tensor, events: Events, state: Tensor) -> tuple[Tensor, Tensor]:
    """A GRU over the events' sequences.

    Args:
        x: (batch, length, inputs). state: (batch, layers, hidden), of each row before its first event.

    Returns:
        (batch, length, hidden), and the state after each row's last event.
    """
    if events.seq_idx is None and x.shape[1]:
        y, state = gru(x, state.transpose(0, 1).contiguous())
        return y, state.transpose(0, 1)
    rows = Rows(events.number)
    if not len(rows.lengths):
        return x.new_zeros(*x.shape[:2], gru.hidden_size), state
    some = ~rows.empty
    begin = torch.index_put(state.new_zeros(len(rows.lengths), *state.shape[1:]), (rows.first[some],), state[some])
    packed = pack_padded_sequence(rows.apart(x), rows.lengths.cpu(), True, enforce_sorted=False)
    y, after = gru(packed, begin.transpose(0, 1).contiguous())
    y, _ = pad_packed_sequence(y, True, total_length=rows.width)
    return rows.together(y), torch.index_put(state, (some,), after.transpose(0, 1)[rows.last[some]].to(state.dtype))


@checked(group="model")
def build(
    describe: Mapping[str, Any],
    size: Literal["one-layer", "two-layers"] = "one-layer",
    channels: Size = 64,
    inner: Size = 128,
    layers: Depth | None = None,
    dropout: Rate = 0.3,
) -> GRU4Rec:
    """A GRU4Rec for a data set; describe as of mamba4rec.build, the rest as of the class."""
    check_choice("model.size", size, SIZES, "model size")
    return GRU4Rec(
        **from_describe(describe),
        channels=channels,
        inner=inner,
        layers=layers or SIZES[size]["layers"],
        dropout=dropout,
    )
