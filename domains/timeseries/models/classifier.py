"""A class for a series, from what a forecaster's encoder makes of it."""

from __future__ import annotations

from torch import Tensor, nn

from .forecaster import Forecaster


class SeriesClassifier(nn.Module):
    """The mean over the patches that a forecaster's `features` are of, and a linear layer from all variables' means.

    Args:
        encoder: a forecaster; its head is taken off.
        channels: variables (1 where they are read together) times channels of its features.
        classes: how many.
        dropout: before the linear layer.
    """

    def __init__(self, encoder: Forecaster, channels: int, classes: int, dropout: float = 0.0):
        super().__init__()
        encoder.head = nn.Identity()
        self.encoder, self.norm = encoder, nn.LayerNorm(channels)
        self.dropout, self.classifier = nn.Dropout(dropout), nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, length, variables) to logits (batch, classes)."""
        found = self.encoder.features(x).mean(2).flatten(1)
        return self.classifier(self.dropout(self.norm(found.to(self.norm.weight.dtype))))
