"""S-Mamba (arXiv 2403.11144): a token a variable, a Mamba forwards and a Mamba backwards over the variables.

Parameter names are those of the published code, in which the Mambas stand where iTransformer has its attention.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from ....core.ranges import Count, Depth, Positive, Rate, Size, checked
from ....core.scans import Scan
from .encoder import Attention, PostNormLayer
from .forecaster import Backend, Compat, described, is_published, sized
from .inverted import InvertedForecaster
from .mixing import mamba, of_layer, ways

SIZES = {
    "micro": {"d_model": 64, "d_ff": 64, "n_layer": 2, "d_state": 8},
    "etth": {"d_model": 256, "d_ff": 256, "n_layer": 2, "d_state": 2},
    # For the horizon 96 the paper has 256 channels.
    "ettm": {"d_model": 128, "d_ff": 128, "n_layer": 2, "d_state": 2},
    "exchange": {"d_model": 128, "d_ff": 128, "n_layer": 2, "d_state": 32},
    "weather": {"d_model": 512, "d_ff": 512, "n_layer": 3, "d_state": 2},
}
BLOCKS = ("attention", "attention_r")
DEAD_CHANNELS = 11  # of the modules that the published layer holds and never calls


class MambaLayer(PostNormLayer):
    """Mixes by one Mamba a direction, whose sum is added; other arguments as of PostNormLayer and SMamba."""

    def __init__(
        self, d_model: int, d_ff: int, d_state: int, d_conv: int, expand: float, dropout: float, activation: str,
        scan: str | Scan, dead: bool, backend: str,
    ):  # fmt: skip
        super().__init__(d_model, d_ff, dropout, activation)
        scans = ways(scan)
        self.blocks = BLOCKS[: len(scans)]
        for name, way in zip(self.blocks, scans, strict=True):
            self.add_module(name, mamba(d_model, way, d_state, d_conv, expand, backend))
        if dead:
            for name in ("man", "man2"):
                self.add_module(name, mamba(DEAD_CHANNELS, "raster", 16, 2, 1, backend).requires_grad_(False))
            self.a = Attention(DEAD_CHANNELS, 1).requires_grad_(False)

    def mix(self, x: Tensor) -> Tensor:
        """(batch, variables, d_model) -> (batch, variables, d_model)."""
        return sum(getattr(self, name)(x)[0] for name in self.blocks)


class SMamba(InvertedForecaster):
    """S-Mamba.

    Args:
        lookback, horizon: steps seen and answered.
        mark_features: calendar features a step; each is one more token.
        d_model, d_ff, n_layer, d_state: channels of a token and of the feed-forward network, layers, states a channel.
        d_conv, expand: of the Mambas.
        scan: the way over the variables. "bidirectional" is the paper's: two whole Mambas, one from each end; along any
            other scan one Mamba walks all paths.
        dropout: of tokens and feed-forward network. activation: "gelu" or "relu".
        use_norm: take each window's mean and deviation out first.
        compat: "corrected" leaves out two Mambas and an attention that every published layer holds and never calls (4,928
            parameters in two layers); "published" has them, untrained, for its checkpoints. Both answer the same.
        backend: of the scans.
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
        d_state: Size = 2,
        d_conv: Size = 2,
        expand: Positive = 1,
        scan: str | Scan = "bidirectional",
        dropout: Rate = 0.1,
        activation: str = "gelu",
        use_norm: bool = True,
        compat: Compat = "corrected",
        backend: Backend = "auto",
    ):
        options = {"d_state": d_state, "d_conv": d_conv, "expand": expand, "dropout": dropout, "activation": activation}
        options |= {"dead": is_published(compat), "backend": backend}
        layers = [MambaLayer(d_model, d_ff, **options, scan=of_layer(scan, index)) for index in range(n_layer)]
        super().__init__(lookback, horizon, mark_features, layers, d_model, dropout, use_norm)


@checked(group="model")
def build(
    describe: Mapping,
    scan: str | Scan | None = None,
    size: Literal["micro", "etth", "ettm", "exchange", "weather"] | None = None,
    d_model: Size | None = None,
    d_ff: Size | None = None,
    n_layer: Depth | None = None,
    d_state: Size | None = None,
    dropout: Rate = 0.1,
    use_norm: bool = True,
    compat: Compat = "corrected",
    backend: Backend = "auto",
) -> SMamba:
    """An S-Mamba for a data set.

    Args:
        describe: lookback, horizon, mark_features (left out: none).
        size: a row of SIZES, None: what the data ask for; d_model, d_ff, n_layer, d_state: other than the size's.
        scan, dropout, use_norm, compat, backend: SMamba's.
    """
    options = sized(SIZES, size, describe, d_model=d_model, d_ff=d_ff, n_layer=n_layer, d_state=d_state)
    return SMamba(
        **described(describe, "mark_features"), **options, scan=scan or "bidirectional", dropout=dropout,
        use_norm=use_norm, compat=compat, backend=backend,
    )  # fmt: skip
