"""HSTU (arXiv 2402.17152, section 3.2): attention without a softmax, gated, with biases of place and time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....core.errors import UserError, check_choice
from ....core.packing import without_padding
from ....core.ranges import Count, Depth, Positive, Rate, Size, checked
from .rows import check_padding
from .sequential import Compat, Events, SequentialModel, check_compat, from_describe

EPS = 1e-6
BUCKETS = 128  # of time differences, by log(seconds) / 0.301 as in the authors' code
LOG_STEP = 0.301
SIZES = {
    "base": {"channels": 50, "layers": 2, "heads": 1},
    "large": {"channels": 50, "layers": 8, "heads": 2},
}


class HSTUState(NamedTuple):
    """What a layer carries to the next piece; it grows with every event.

    key, value: (batch, past, heads, channels of a head). number, place: (batch, past) int64, the sequence of each event, -1 at
    padding, and its place there. times: (batch, past), or None.
    """

    key: Tensor
    value: Tensor
    number: Tensor
    place: Tensor
    times: Tensor | None


class Relations(NamedTuple):
    """Between the events (rows) and those before them, a state's included (columns): (batch, length, past + length) each.

    seen: who sees whom. back: int64, places back. bucket: int64, of the time passed, or None. number, place, times: as of
    HSTUState, the events' included.
    """

    seen: Tensor
    back: Tensor
    bucket: Tensor | None
    number: Tensor
    place: Tensor
    times: Tensor | None


def relate(events: Events, state: HSTUState | None, buckets: int, ask_next: bool) -> Relations:
    """The relations of the events of a call.

    Args:
        state: of any layer. buckets: of time differences, 0: times are not read.
        ask_next: time passed is counted to the next event's time, which is known when it is asked for, and for the last
            event of a row to its own.
    """
    number, place, times = events.number, events.place, events.times if buckets else None
    if state is not None:
        if (times is None) != (state.times is None):
            raise UserError("times must be given for all events or for none", given="times of some")
        last = state.number.amax(1, keepdim=True).clamp_min(0) if state.number.shape[1] else 0
        number = torch.cat([state.number, torch.where(number >= 0, number + last, -1)], 1)
        place = torch.cat([state.place, place], 1)
        times = None if times is None else torch.cat([state.times, times], 1)
    past = number.shape[1] - events.number.shape[1]
    own = number[:, past:, None]
    index = torch.arange(number.shape[1], device=number.device)
    seen = (own == number[:, None]) & (index[past:, None] >= index)
    bucket = None
    if times is not None:
        asked = torch.cat([times[:, past + 1 :], times[:, -1:]], 1) if ask_next and times.shape[1] else times[:, past:]
        passed = (asked[:, :, None] - times[:, None]).abs().clamp_min(1)
        bucket = (passed.double().log() / LOG_STEP).long().clamp_max(buckets)
    return Relations(seen, (place[:, past:, None] - place[:, None]).clamp_min(0), bucket, number, place, times)


class HSTULayer(nn.Module):
    """One unit: u, v, q, k from the normed events by SiLU; o(u * norm(SiLU(q k + bias) v / length)) added to them.

    Args:
        channels, heads, head_channels: of the events; heads; channels of a head. length: the most events of a history.
        dropout: before the last layer. buckets: of time differences, 0: none.
    """

    def __init__(self, channels: int, heads: int, head_channels: int, length: int, dropout: float, buckets: int):
        super().__init__()
        self.heads, self.head_channels, self.length = heads, head_channels, length
        inner = heads * head_channels
        self.uvqk = nn.Parameter(torch.empty(channels, 4 * inner).normal_(std=0.02))
        self.o, self.dropout = nn.Linear(inner, channels), nn.Dropout(dropout)
        nn.init.xavier_uniform_(self.o.weight)
        # Weights of places ahead stand in the authors' tables too, behind those of places back; no causal model reads them.
        self.pos_w = nn.Parameter(torch.empty(2 * length - 1).normal_(std=0.02))
        self.ts_w = nn.Parameter(torch.empty(buckets + 1).normal_(std=0.02)) if buckets else None

    def forward(self, x: Tensor, relations: Relations, state: HSTUState | None) -> tuple[Tensor, HSTUState]:
        """(batch, length, channels) and what was kept, to the same of the next events."""
        mixed = F.silu(F.layer_norm(x, x.shape[-1:], eps=EPS) @ self.uvqk).chunk(4, -1)
        gate, value, query, key = mixed[0], *(t.unflatten(-1, (self.heads, self.head_channels)) for t in mixed[1:])
        if state is not None:
            key, value = torch.cat([state.key, key], 1), torch.cat([state.value, value], 1)
        elif not self.training:  # a state is nobody's view
            key, value = key.clone(), value.clone()
        bias = self.pos_w[(self.length - 1 - relations.back).clamp_min(0)]
        if relations.bucket is not None:
            bias = bias + self.ts_w[relations.bucket]
        weights = F.silu(torch.einsum("bqhc,bkhc->bhqk", query, key) + bias[:, None]) / self.length
        weights = weights.masked_fill(~relations.seen[:, None], 0)
        y = torch.einsum("bhqk,bkhc->bqhc", weights, value).flatten(2)
        y = gate * F.layer_norm(y, y.shape[-1:], eps=EPS)
        return x + self.o(self.dropout(y)), HSTUState(key, value, *relations[3:])


class HSTU(SequentialModel):
    """HSTU in its setting for next items: learned positions, hidden states and items of length 1, scores over a temperature.

    Args:
        items, length, behaviours, features: see SequentialModel; padded on the right in the authors' code.
        channels, layers, heads, head_channels: width; layers; heads; channels of a head (None: channels / heads).
        dropout: of the inputs and in the layers.
        temperature: divides the scores.
        buckets: of the time between events where times are given, on a logarithmic scale; 0: times are not read.
        compat: "corrected": time is counted to an event's own, so that a state can be carried. "published": to the next
            event's, and to its own for the last event of a row; without a state.
    """

    def __init__(
        self,
        items: Size,
        length: Size,
        channels: Size = 50,
        layers: Depth = 2,
        heads: Size = 1,
        head_channels: Size | None = None,
        dropout: Rate = 0.2,
        temperature: Positive = 0.05,
        buckets: Count = BUCKETS,
        compat: Compat = "corrected",
        **inputs: Any,
    ):
        super().__init__(items, length, channels, positions="position_embedding", **inputs)
        check_compat(compat)
        if head_channels is None and channels % heads:
            raise UserError("the heads must divide the channels", given=f"channels={channels}, heads={heads}")
        self.published, self.temperature, self.buckets = compat == "published", temperature, buckets
        self.reads_padding = self.published
        self.dropout = nn.Dropout(dropout)
        head_channels = channels // heads if head_channels is None else head_channels
        self.layers = nn.ModuleList(
            HSTULayer(channels, heads, head_channels, length, dropout, buckets) for _ in range(layers)
        )
        for table in (module for module in self.modules() if isinstance(module, nn.Embedding)):
            nn.init.trunc_normal_(table.weight, std=0.02)
            if table.padding_idx is not None:
                nn.init.zeros_(table.weight[0].data)
        nn.init.trunc_normal_(self.position_embedding.weight, std=channels**-0.5)

    @property
    def carries_state(self) -> bool:
        return not self.published

    def run(self, events: Events, states: tuple | None) -> tuple[Tensor, tuple]:
        if self.published:
            check_padding(events.number, "right")
        x = self.dropout(self.embed(events, self.channels**0.5))
        x, after = without_padding(x, events.seq_idx), []
        relations = relate(events, None if states is None else states[0], self.buckets, self.published)
        for layer, state in zip(self.layers, states or [None] * len(self.layers), strict=True):
            x, state = layer(x, relations, state)
            after.append(state)
        return F.normalize(x, dim=-1, eps=EPS), tuple(after)

    def factors(self, hidden: Tensor, items: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As of Recommender: of cosines over the temperature."""
        left, right = super().factors(hidden, items)
        return left / self.temperature, F.normalize(right, dim=-1, eps=EPS)


@checked(group="model")
def build(
    describe: Mapping[str, Any],
    size: Literal["base", "large"] = "base",
    channels: Size | None = None,
    layers: Depth | None = None,
    heads: Size | None = None,
    head_channels: Size | None = None,
    dropout: Rate = 0.2,
    temperature: Positive = 0.05,
    buckets: Count = BUCKETS,
    compat: Literal["corrected", "published"] = "corrected",
) -> HSTU:
    """An HSTU for a data set; describe as of mamba4rec.build, the rest as of the class.

    Args:
        size: the paper's on MovieLens, "base" or "large". channels, layers, heads: other than the size's.
    """
    check_choice("model.size", size, SIZES, "model size")
    chosen = {key: value for key, value in {"channels": channels, "layers": layers, "heads": heads}.items() if value}
    return HSTU(
        **from_describe(describe), **{**SIZES[size], **chosen}, head_channels=head_channels, dropout=dropout,
        temperature=temperature, buckets=buckets, compat=compat,
    )  # fmt: skip
