"""Forecasters whose tokens are whole series (iTransformer, arXiv 2310.06625): the embedding, what stands around the layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .encoder import Encoder
from .forecaster import Forecaster
from .instance_norm import InstanceNorm, NoNorm


class InvertedEmbedding(nn.Module):
    """A whole series becomes a token; calendar features are series like others.

    Args:
        lookback: steps of a series. d_model: channels of a token.
        dropout: of the tokens.
    """

    def __init__(self, lookback: int, d_model: int, dropout: float = 0.0):
        super().__init__()
        self.value_embedding = nn.Linear(lookback, d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, marks: Tensor | None) -> Tensor:
        """(batch, look-back, variables), (batch, look-back, features) to (batch, variables + features, d_model)."""
        x = x if marks is None else torch.cat([x, marks.to(x.dtype)], 2)
        return self.dropout(self.value_embedding(x.transpose(1, 2)))


class InvertedForecaster(Forecaster):
    """Embedding, layers, a linear layer from each variable's token to its forecast; parameter names of iTransformer.

    `features` are (batch, variables, d_model). Takes any number of variables, whatever it was trained with.

    Args:
        lookback, horizon, mark_features: as of Forecaster.
        layers: over (batch, variables + mark_features, d_model).
        d_model: channels of a token.
        dropout: of the embedded tokens.
        use_norm: take each window's mean and deviation out first.
    """

    reads_marks = True
    tokens_are = "variables"

    def __init__(
        self, lookback: int, horizon: int, mark_features: int, layers: Sequence[nn.Module], d_model: int, dropout: float,
        use_norm: bool,
    ):  # fmt: skip
        super().__init__(lookback, horizon, mark_features=mark_features)
        self.revin_layer = InstanceNorm() if use_norm else NoNorm()
        self.enc_embedding = InvertedEmbedding(lookback, d_model, dropout)
        self.encoder = Encoder(layers, d_model)
        self.projector = nn.Linear(d_model, horizon)

    def encode(self, x: Tensor, marks: Tensor | None) -> Tensor:
        """(batch, variables, d_model); the calendar's tokens are read by the others and then left out."""
        return self.encoder(self.enc_embedding(x, marks))[:, : x.shape[2]]

    def decode(self, features: Tensor) -> Tensor:
        """(batch, variables, d_model) -> (batch, variables, horizon)."""
        return self.projector(features)
