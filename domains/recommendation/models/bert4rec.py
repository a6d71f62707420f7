"""BERT4Rec (arXiv 1904.06690): attention over the whole history, learnt by filling in masked items; names are RecBole's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....core.errors import check_choice
from ....core.ranges import Depth, Rate, Size, checked
from .feed_forward import EPS
from .rows import Rows
from .sasrec import Activation
from .sequential import (
    BEHAVIOUR,
    SIZES,
    Compat,
    Events,
    SequentialModel,
    check_compat,
    from_describe,
    init_normal,
    last_of_each,
)
from .transformer import TransformerEncoder


class BERT4Rec(SequentialModel):
    """BERT4Rec. The hidden state at a place says which item stands there: training puts `mask` at some places and reads those.

    `encode` asks for the next event with a mask behind the history.

    Args:
        items, length, behaviours, features: see SequentialModel; padded on the right in RecBole. Item number items + 1 is the
            mask. `length` counts it: the last length - 1 events are read.
        channels, layers, heads, inner, dropout, attention_dropout, activation, eps: see SASRec.
        compat: "corrected": only a history that is too long loses its first events to the mask. "published": as RecBole, every
            history loses its first event, a history of one event all it has.
    """

    causal = False

    def __init__(
        self,
        items: Size,
        length: Size,
        channels: Size = 64,
        layers: Depth = 2,
        heads: Size = 2,
        inner: Size | None = None,
        dropout: Rate = 0.2,
        attention_dropout: Rate = 0.2,
        activation: Activation = "gelu",
        eps: float = EPS,
        compat: Compat = "corrected",
        **inputs: Any,
    ):
        super().__init__(items, length, channels, positions="position_embedding", more_items=1, **inputs)
        check_compat(compat)
        self.compat, self.mask = compat, items + 1
        self.trm_encoder = TransformerEncoder(
            layers, channels, heads, inner or 4 * channels, dropout, attention_dropout, activation, eps
        )
        self.LayerNorm, self.dropout = nn.LayerNorm(channels, eps), nn.Dropout(dropout)
        self.output_ffn, self.output_ln = nn.Linear(channels, channels), nn.LayerNorm(channels, eps)
        self.output_bias = nn.Parameter(torch.zeros(items + 1))
        init_normal(self, compat=compat)

    def run(self, events: Events, states: tuple | None) -> tuple[Tensor, tuple]:
        x = self.dropout(self.LayerNorm(self.embed(events)))
        x, _ = self.trm_encoder(x, events, None, False)
        return self.output_ln(F.gelu(self.output_ffn(x))), ()

    def encode(
        self,
        items: Tensor,
        seq_idx: Tensor | None = None,
        times: Tensor | None = None,
        features: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """What each row's last history says of the next event, (batch, channels), read at a mask behind it."""
        events = self.events(items, seq_idx, times, features)
        rows = Rows(events.number)
        real = ~rows.empty
        last = rows.last[real]
        history, lengths = rows.apart(items)[last], rows.lengths[last]
        # RecBole cuts a history to `length` events before it drops the first.
        kept = lengths.clamp_max(self.length) - 1 if self.compat == "published" else lengths.clamp_max(self.length - 1)
        kept = kept[:, None]
        place = torch.arange(min(rows.width, self.length - 1) + 1, device=items.device)
        taken = (place + lengths[:, None] - kept).clamp_max(max(rows.width - 1, 0))
        inside = place < kept
        asked = torch.where(inside, history.gather(1, taken), torch.where(place == kept, self.mask, 0))
        beside = {}
        for name, values in events.features.items():
            own = rows.apart(values)[last]
            index, shown = (t[(..., *[None] * (own.dim() - 2))] for t in (taken, inside))
            beside[name] = own.take_along_dim(index, 1) * shown
            if name == BEHAVIOUR:  # the next event's kind is taken to be the last one's
                final = own.take_along_dim((lengths - 1)[:, None], 1)
                beside[name] = torch.where(place == kept, final, beside[name])
        hidden, _ = self(asked, features=beside)
        said = last_of_each(hidden, asked != 0)
        return torch.index_put(said.new_zeros(len(items), self.channels), (real,), said)

    def factors(self, hidden: Tensor, items: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As of Recommender: the embeddings, and a channel more for the items' biases."""
        left, right = super().factors(hidden, items)
        bias = self.output_bias if items is None else self.output_bias[items]
        return torch.cat([left, torch.ones_like(left[..., :1])], -1), torch.cat([right, bias[:, None]], -1)


@checked(group="model")
def build(
    describe: Mapping[str, Any],
    size: Literal["one-layer", "two-layers"] = "two-layers",
    channels: Size = 64,
    layers: Depth | None = None,
    heads: Size = 2,
    inner: Size | None = None,
    dropout: Rate = 0.2,
    attention_dropout: Rate = 0.2,
    activation: Literal["gelu", "relu", "swish"] = "gelu",
    compat: Literal["corrected", "published"] = "corrected",
) -> BERT4Rec:
    """A BERT4Rec for a data set; describe as of mamba4rec.build, the rest as of the class."""
    check_choice("model.size", size, SIZES, "model size")
    return BERT4Rec(
        **from_describe(describe), channels=channels, layers=layers or SIZES[size]["layers"], heads=heads, inner=inner,
        dropout=dropout, attention_dropout=attention_dropout, activation=activation, compat=compat,
    )  # fmt: skip
