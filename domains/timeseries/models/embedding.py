"""From a window to a token a step (Informer, arXiv 2012.07436), and fixed positions."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ....core.errors import UserError


def sinusoids(length: int, channels: int) -> Tensor:
    """Sines and cosines of positions (Attention is all you need, section 3.5): (length, channels), float32."""
    position = torch.arange(length)[:, None]
    rate = torch.exp(torch.arange(0, channels, 2) * (-math.log(10_000.0) / channels))
    table = torch.zeros(length, channels)
    table[:, 0::2] = torch.sin(position * rate)
    table[:, 1::2] = torch.cos(position * rate[: channels // 2])
    return table


class Positions(nn.Module):
    """A fixed table of positions, called `pe` and as long as in the reference implementations, whose checkpoints hold it."""

    LENGTH = 5_000

    def __init__(self, channels: int, length: int):
        super().__init__()
        self.register_buffer("pe", sinusoids(max(self.LENGTH, length), channels)[None])

    def forward(self, length: int) -> Tensor:
        """(1, length, channels)."""
        return self.pe[:, :length]


class StepEmbedding(nn.Module):
    """A step becomes a token: a circular convolution over three steps, and what the calendar says.

    Args:
        variables: series of a window. d_model: channels of a token.
        mark_features: calendar features of a step; 0: none are added. With them goes a table of positions, whether they are
            added or not: checkpoints hold it.
        positions: add positions too. length: the longest sequence.
        dropout: of the tokens.
    """

    def __init__(self, variables: int, d_model: int, mark_features: int, positions: bool, length: int, dropout: float):
        super().__init__()
        circular = nn.Conv1d(variables, d_model, 3, padding=1, padding_mode="circular", bias=False)
        nn.init.kaiming_normal_(circular.weight, mode="fan_in", nonlinearity="leaky_relu")
        self.value_embedding = nn.Module()
        self.value_embedding.tokenConv = circular
        if positions or mark_features:
            self.position_embedding = Positions(d_model, length)
        if mark_features:
            self.temporal_embedding = nn.Module()
            self.temporal_embedding.embed = nn.Linear(mark_features, d_model, bias=False)
        self.mark_features, self.positions, self.dropout = mark_features, positions, nn.Dropout(dropout)

    def forward(self, x: Tensor, marks: Tensor | None) -> Tensor:
        """(batch, length, variables), (batch, length, features) to (batch, length, d_model).

        Raises:
            UserError: no marks, where the model was made for some.
        """
        tokens = self.value_embedding.tokenConv(x.transpose(1, 2)).transpose(1, 2)
        if self.mark_features and marks is None:
            raise UserError(
                "this model was made with calendar features", given="marks=None",
                allowed=f"(batch, {x.shape[1]}, {self.mark_features})",
            )  # fmt: skip
        if self.mark_features:
            tokens = tokens + self.temporal_embedding.embed(marks.to(tokens.dtype))
        if self.positions:
            tokens = tokens + self.position_embedding(x.shape[1])
        return self.dropout(tokens)
