"""iTransformer (arXiv 2310.06625): a token a variable, attention between variables; the Transformer twin of S-Mamba.

Parameter names are those of the published code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from ....core.ranges import Count, Depth, Rate, Size, checked
from .encoder import Attention, PostNormLayer
from .forecaster import described, sized
from .inverted import InvertedForecaster

SIZES = {
    "micro": {"d_model": 64, "d_ff": 64, "n_layer": 2, "n_heads": 4},
    "etth": {"d_model": 256, "d_ff": 256, "n_layer": 2, "n_heads": 8},
    "ettm": {"d_model": 128, "d_ff": 128, "n_layer": 2, "n_heads": 8},
    "exchange": {"d_model": 128, "d_ff": 128, "n_layer": 2, "n_heads": 8},
    "weather": {"d_model": 512, "d_ff": 512, "n_layer": 3, "n_heads": 8},
}


class AttentionLayer(PostNormLayer):
    """Mixes by attention, with the layer's dropout on its weights and on what it says; other arguments as of PostNormLayer."""

    def __init__(self, d_model: int, d_ff: int, heads: int, dropout: float, activation: str):
        super().__init__(d_model, d_ff, dropout, activation)
        self.attention = Attention(d_model, heads, dropout)

    def mix(self, x: Tensor) -> Tensor:
        """(batch, variables, d_model) -> (batch, variables, d_model)."""
        return self.dropout(self.attention(x))


class ITransformer(InvertedForecaster):
    """iTransformer.

    Args:
        lookback, horizon: steps seen and answered.
        mark_features: calendar features a step; each is one more token.
        d_model, d_ff, n_layer, n_heads: channels of a token and of the feed-forward network, layers, heads.
        dropout: of tokens, attention and feed-forward network.
        activation: of the feed-forward network, "gelu" or "relu".
        use_norm: take each window's mean and deviation out first.
    """

    @checked
    def __init__(
        self,
        lookback: Size,
        horizon: Size,
        mark_features: Count = 0,
        d_model: Size = 256,
        d_ff: Size = 256,
        n_layer: Depth = 2,
        n_heads: Size = 8,
        dropout: Rate = 0.1,
        activation: str = "gelu",
        use_norm: bool = True,
    ):
        layers = [AttentionLayer(d_model, d_ff, n_heads, dropout, activation) for _ in range(n_layer)]
        super().__init__(lookback, horizon, mark_features, layers, d_model, dropout, use_norm)


@checked(group="model")
def build(
    describe: Mapping,
    size: Literal["micro", "etth", "ettm", "exchange", "weather"] | None = None,
    d_model: Size | None = None,
    d_ff: Size | None = None,
    n_layer: Depth | None = None,
    n_heads: Size | None = None,
    dropout: Rate = 0.1,
    use_norm: bool = True,
) -> ITransformer:
    """An iTransformer for a data set.

    Args:
        describe: lookback, horizon, mark_features (left out: none).
        size: a row of SIZES, None: what the data ask for; d_model, d_ff, n_layer, n_heads: other than the size's.
        dropout, use_norm: ITransformer's.
    """
    options = sized(SIZES, size, describe, d_model=d_model, d_ff=d_ff, n_layer=n_layer, n_heads=n_heads)
    return ITransformer(**described(describe, "mark_features"), **options, dropout=dropout, use_norm=use_norm)
