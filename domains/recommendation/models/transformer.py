"""The Transformer layer of RecBole (SASRec, BERT4Rec; also in MaTrRec), norms behind each half; names are RecBole's."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....core.errors import UserError
from ....core.linear import applied
from ....core.packing import has_padding, without_padding
from .feed_forward import EPS, RECBOLE, FeedForward
from .sequential import Events


class Remembered(NamedTuple):
    """What attention carries to the next piece; it grows with every event.

    key, value: (batch, past, heads, channels of a head). number: (batch, past) int64, the sequence of each, -1 at padding.
    """

    key: Tensor
    value: Tensor
    number: Tensor


class Sight(NamedTuple):
    """Who sees whom.

    mask: (batch, 1, length, past + length), true where seen; None: all that causality allows. causal: whether events see only
    those before them and themselves. number: (batch, past + length) int64, the sequence of each, -1 at padding.
    """

    mask: Tensor | None
    causal: bool
    number: Tensor


def sight(events: Events, past: Tensor | None = None, causal: bool = True) -> Sight:
    """Who sees whom among the events and those of a state.

    Args:
        past: (batch, past) int64, `number` of what is remembered.
        causal: events see only those before them and themselves.
    """
    length = events.number.shape[1]
    number, before = events.number, 0
    if past is not None:
        before = past.shape[1]
        last = past.amax(1, keepdim=True).clamp_min(0) if before else 0
        number = torch.cat([past, torch.where(events.number >= 0, events.number + last, -1)], 1)
    plain = events.seq_idx is None and not (before and has_padding(past))
    if plain and (not before or length == 1):
        return Sight(None, causal and length > 1, number)
    place = torch.arange(before + length, device=number.device)
    own = number[:, before:, None]
    seen = (own == number[:, None]) & (own >= 0)
    if causal:
        seen = seen & (place[before:, None] >= place)
    # Padding sees itself: a row without anything to see has no softmax.
    return Sight((seen | (place[before:, None] == place))[:, None], causal, number)


class MultiHeadAttention(nn.Module):
    """Softmax attention over the events, residual and norm: (batch, length, channels) to the same."""

    def __init__(self, channels: int, heads: int, dropout: float, attention_dropout: float, eps: float = EPS):
        super().__init__()
        if channels % heads:
            raise UserError("the heads must divide the channels", given=f"channels={channels}, heads={heads}")
        self.heads, self.attention_dropout = heads, attention_dropout
        self.query, self.key, self.value, self.dense = (nn.Linear(channels, channels) for _ in range(4))
        self.LayerNorm, self.dropout = nn.LayerNorm(channels, eps), nn.Dropout(dropout)

    def forward(self, x: Tensor, seen: Sight, state: Remembered | None = None) -> tuple[Tensor, Remembered]:
        query, key, value = (
            applied(layer, x).unflatten(-1, (self.heads, -1)) for layer in (self.query, self.key, self.value)
        )
        if state is not None:
            key, value = torch.cat([state.key, key], 1), torch.cat([state.value, value], 1)
        y = F.scaled_dot_product_attention(
            *(t.transpose(1, 2) for t in (query, key, value)), seen.mask, self.attention_dropout if self.training else 0.0,
            is_causal=seen.causal and seen.mask is None,
        )  # fmt: skip
        y = self.dropout(applied(self.dense, y.transpose(1, 2).flatten(2)))
        return self.LayerNorm(y + x), Remembered(key, value, seen.number)


class TransformerLayer(nn.Module):
    """Attention, then the position-wise network."""

    def __init__(
        self, channels: int, heads: int, inner: int, dropout: float, attention_dropout: float,
        activation: str = "gelu", eps: float = EPS,
    ):  # fmt: skip
        super().__init__()
        self.multi_head_attention = MultiHeadAttention(channels, heads, dropout, attention_dropout, eps)
        self.feed_forward = FeedForward(channels, inner, dropout, activation, RECBOLE, False, eps)

    def forward(self, x: Tensor, seen: Sight, state: Remembered | None = None) -> tuple[Tensor, Remembered]:
        """(batch, length, channels) and what was remembered, to the same of the next events."""
        x, state = self.multi_head_attention(x, seen, state)
        return self.feed_forward(x), state


class TransformerEncoder(nn.Module):
    """Layers one after the other, under RecBole's name `layer`."""

    def __init__(self, layers: int, *layer, **options):
        super().__init__()
        self.layer = nn.ModuleList(TransformerLayer(*layer, **options) for _ in range(layers))

    def forward(self, x: Tensor, events: Events, states: tuple | None, causal: bool) -> tuple[Tensor, tuple]:
        """(batch, length, channels), and a state of each layer."""
        x, after = without_padding(x, events.seq_idx), []
        seen = sight(events, None if states is None else states[0].number, causal)
        for layer, state in zip(self.layer, states or [None] * len(self.layer), strict=True):
            x, state = layer(x, seen, state)
            after.append(state)
        return x, tuple(after)
