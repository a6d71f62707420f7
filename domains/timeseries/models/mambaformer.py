"""Mambaformer and its family (arXiv 2404.14757, version 1): Mamba and causal attention over steps, in five arrangements.

Parameter names are those of the published code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from ....core.errors import check_choice
from ....core.ranges import Count, Depth, Positive, Rate, Size, checked
from ....core.scans import Scan
from .embedding import StepEmbedding
from .encoder import Attention, PostNormLayer
from .forecaster import Backend, Forecaster, described, sized
from .instance_norm import InstanceNorm, NoNorm
from .mixing import mamba, of_layer

SIZES = {
    "micro": {"d_model": 32, "d_ff": 64, "n_layer": 1, "n_heads": 4},
    "base": {"d_model": 128, "d_ff": 512, "n_layer": 1, "n_heads": 8},
}
Form = Literal["mambaformer", "attention_mamba", "mamba_attention", "mamba", "transformer"]
LAYERS = {  # form: the name of its layers
    "mambaformer": "AM_layers",
    "attention_mamba": "AM_layers",
    "mamba_attention": "MA_layers",
    "mamba": "mamba_layers",
    "transformer": "decoder_layers",
}


class MambaLayer(nn.Module):
    """norm(x + Mamba(x))."""

    def __init__(self, block: nn.Module, d_model: int):
        super().__init__()
        self.mamba, self.norm = block, nn.LayerNorm(d_model)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, length, d_model) -> (batch, length, d_model)."""
        return self.norm(x + self.mamba(x)[0])


class HybridLayer(nn.Module):
    """Attention and Mamba, each added and normalised, in this order or the other; dropout of what attention says."""

    def __init__(self, attention: nn.Module, block: nn.Module, d_model: int, dropout: float, attention_first: bool):
        super().__init__()
        self.self_attention, self.mamba = attention, block
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.dropout, self.attention_first = nn.Dropout(dropout), attention_first

    def forward(self, x: Tensor) -> Tensor:
        """(batch, length, d_model) -> (batch, length, d_model)."""
        first, second = (self._attend, self._mix) if self.attention_first else (self._mix, self._attend)
        x = self.norm1(x + first(x))
        return self.norm2(x + second(x))

    def _attend(self, x: Tensor) -> Tensor:
        return self.dropout(self.self_attention(x))

    def _mix(self, x: Tensor) -> Tensor:
        return self.mamba(x)[0]


class TransformerLayer(PostNormLayer):
    """Attention and a feed-forward network, as of PostNormLayer."""

    def __init__(self, attention: nn.Module, d_model: int, d_ff: int, dropout: float, activation: str):
        super().__init__(d_model, d_ff, dropout, activation)
        self.self_attention = attention

    def mix(self, x: Tensor) -> Tensor:
        """(batch, length, d_model) -> (batch, length, d_model)."""
        return self.dropout(self.self_attention(x))


class Mambaformer(Forecaster):
    """A decoder that reads the look-back and then empty steps, whose answers are the forecast.

    `features` are (batch, look-back + horizon, d_model). It needs the calendar features of the horizon too, which are known
    ahead: marks are (batch, look-back + horizon, mark_features).

    Args:
        lookback, horizon: steps seen and answered. variables: series of a window.
        mark_features: calendar features a step; 0: none are read.
        form: "mambaformer" (a Mamba, then layers of attention and Mamba), "attention_mamba" (those layers alone),
            "mamba_attention" (the other way round), "mamba" (Mambas), "transformer" (attention and feed-forward networks).
        d_model, d_ff, n_layer, n_heads: channels of a token and of a feed-forward network, layers, heads.
        d_state, d_conv, expand: of the Mambas.
        positions: add positions to the tokens; the paper does so where no Mamba knows them.
        scan: the Mambas' way over the steps.
        dropout: of tokens, attention, feed-forward network. activation: "gelu" or "relu".
        use_norm: take each window's mean and deviation out first, which the paper does not.
        backend: of the scans.
    """

    reads_marks = True
    tokens_are = "steps"
    future_marks = True

    @checked
    def __init__(
        self,
        lookback: Size,
        horizon: Size,
        variables: Size,
        mark_features: Count = 0,
        form: Form = "mambaformer",
        d_model: Size = 128,
        d_ff: Size = 512,
        n_layer: Depth = 1,
        n_heads: Size = 8,
        d_state: Size = 16,
        d_conv: Size = 4,
        expand: Positive = 2,
        positions: bool | None = None,
        scan: str | Scan = "raster",
        dropout: Rate = 0.05,
        activation: str = "gelu",
        use_norm: bool = False,
        backend: Backend = "auto",
    ):
        super().__init__(lookback, horizon, variables, mark_features)
        check_choice("form", form, LAYERS)
        self.revin_layer = InstanceNorm() if use_norm else NoNorm()
        positions = form == "transformer" if positions is None else positions
        self.dec_embedding = StepEmbedding(variables, d_model, mark_features, positions, lookback + horizon, dropout)

        def block(index: int) -> nn.Module:
            return mamba(d_model, of_layer(scan, index), d_state, d_conv, expand, backend)

        def layer(index: int) -> nn.Module:
            if form == "mamba":
                return MambaLayer(block(index), d_model)
            attention = Attention(d_model, n_heads, dropout, causal=True)
            if form == "transformer":
                return TransformerLayer(attention, d_model, d_ff, dropout, activation)
            return HybridLayer(attention, block(index), d_model, dropout, form != "mamba_attention")

        if form == "mambaformer":
            self.mamba_preprocess = MambaLayer(block(n_layer), d_model)
        self.form, self.name_of_layers = form, LAYERS[form]
        self.add_module(self.name_of_layers, nn.ModuleList(layer(index) for index in range(n_layer)))
        self.out_proj = nn.Linear(d_model, variables)

    def encode(self, x: Tensor, marks: Tensor | None) -> Tensor:
        """(batch, look-back + horizon, d_model)."""
        x = self.dec_embedding(F.pad(x, (0, 0, 0, self.horizon)), marks)
        if self.form == "mambaformer":
            x = self.mamba_preprocess(x)
        for layer in getattr(self, self.name_of_layers):
            x = layer(x)
        return x

    def decode(self, features: Tensor) -> Tensor:
        """(batch, look-back + horizon, d_model) -> (batch, variables, horizon)."""
        return self.out_proj(features[:, -self.horizon :]).transpose(1, 2)


@checked(group="model")
def build(
    describe: Mapping,
    scan: str | Scan | None = None,
    size: Literal["micro", "base"] | None = None,
    form: Form = "mambaformer",
    d_model: Size | None = None,
    d_ff: Size | None = None,
    n_layer: Depth | None = None,
    n_heads: Size | None = None,
    d_state: Size = 16,
    d_conv: Size = 4,
    positions: bool | None = None,
    dropout: Rate = 0.05,
    use_norm: bool = False,
    backend: Backend = "auto",
) -> Mambaformer:
    """A Mambaformer or one of its family for a data set.

    Args:
        describe: lookback, horizon, variables, mark_features (left out: none).
        size: a row of SIZES, None: what the data ask for; d_model, d_ff, n_layer, n_heads: other than the size's.
        scan, form, d_state, d_conv, positions, dropout, use_norm, backend: Mambaformer's.
    """
    options = sized(SIZES, size, describe, d_model=d_model, d_ff=d_ff, n_layer=n_layer, n_heads=n_heads)
    return Mambaformer(
        **described(describe, "variables", "mark_features"), **options, form=form, d_state=d_state, d_conv=d_conv,
        positions=positions, scan=scan or "raster", dropout=dropout, use_norm=use_norm, backend=backend,
    )  # fmt: skip
