"""MaTrRec (arXiv 2407.19239): each layer a Mamba for what is long past, then a Transformer layer for what is recent.

Names are those of the authors' code (hidden_size 64, d_state 32, one head; dropout 0.4 on Amazon).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn

from ....core.errors import check_choice
from ....core.ranges import Depth, Positive, Rate, Size, checked
from ....core.scans import Scan
from .feed_forward import EPS
from .mixing import Backend, MixerName, is_causal, make_mixer
from .normed import NormedMixer
from .sasrec import Activation
from .sequential import SIZES, Compat, Events, SequentialModel, check_compat, from_describe, init_normal
from .transformer import Sight, TransformerLayer, sight


class MambaTransformerLayer(nn.Module):
    """A mixer, then a Transformer layer."""

    def __init__(
        self, mixer: nn.Module, channels: int, heads: int, dropouts: tuple[float, float, float], activation: str
    ):
        super().__init__()
        own, hidden, attention = dropouts
        self.mamba = NormedMixer(mixer, channels, own)
        self.trm_encoder = TransformerLayer(channels, heads, 4 * channels, hidden, attention, activation)

    def forward(self, x: Tensor, seen: Sight, state, seq_idx: Tensor | None) -> tuple[Tensor, tuple]:
        """(batch, length, channels) and the two states, to the same of the next events."""
        mixed, remembered = (None, None) if state is None else state
        x, mixed = self.mamba(x, None, mixed, seq_idx)
        x, remembered = self.trm_encoder(x, seen, remembered)
        return x, (mixed, remembered)


class MaTrRec(SequentialModel):
    """MaTrRec over any mixer and scan of the core; attention is causal where the scan is.

    Args:
        items, length, behaviours, features: see SequentialModel; padded on the right in the authors' code.
        channels, layers, heads: width, number of layers, attention heads.
        dropout, hidden_dropout, attention_dropout: of embeddings and mixers; of the Transformer layers; of attention's weights.
        mixer, mixer_options, d_state, d_conv, expand, scan: see make_mixer.
        activation: of the position-wise networks.
        compat: "corrected": Mamba's own start. "published": the authors', which overwrites it.
        backend: of the operators.
    """

    def __init__(
        self,
        items: Size,
        length: Size,
        channels: Size = 64,
        layers: Depth = 1,
        heads: Size = 1,
        dropout: Rate = 0.4,
        hidden_dropout: Rate = 0.4,
        attention_dropout: Rate = 0.4,
        mixer: MixerName = "mamba",
        scan: str | Scan = "raster",
        d_state: Size = 32,
        d_conv: Size = 4,
        expand: Positive = 2,
        mixer_options: Mapping[str, Any] | None = None,
        activation: Activation = "gelu",
        compat: Compat = "corrected",
        backend: Backend = "auto",
        **inputs: Any,
    ):
        super().__init__(items, length, channels, **inputs)
        check_compat(compat)
        self.causal = is_causal(scan)
        self.dropout, self.LayerNorm = nn.Dropout(dropout), nn.LayerNorm(channels, EPS)
        mixing = (channels, scan, d_state, d_conv, expand, mixer_options, backend)
        dropouts = (dropout, hidden_dropout, attention_dropout)
        self.mambatr_layers = nn.ModuleList(
            MambaTransformerLayer(make_mixer(mixer, *mixing), channels, heads, dropouts, activation)
            for _ in range(layers)
        )
        init_normal(self, compat=compat)

    def run(self, events: Events, states: tuple | None) -> tuple[Tensor, tuple]:
        x, after = self.dropout(self.LayerNorm(self.embed(events))), []
        seen = sight(events, None if states is None else states[0][1].number, self.causal)
        for layer, state in zip(self.mambatr_layers, states or [None] * len(self.mambatr_layers), strict=True):
            x, state = layer(x, seen, state, events.seq_idx)
            after.append(state)
        return x, tuple(after)


@checked(group="model")
def build(
    describe: Mapping[str, Any],
    scan: str | Scan = "raster",
    mixer: Literal["mamba", "mamba2", "mamba3", "s4d", "attention"] = "mamba",
    size: Literal["one-layer", "two-layers"] = "one-layer",
    channels: Size = 64,
    layers: Depth | None = None,
    heads: Size = 1,
    dropout: Rate = 0.4,
    hidden_dropout: Rate = 0.4,
    attention_dropout: Rate = 0.4,
    d_state: Size = 32,
    d_conv: Size = 4,
    expand: Positive = 2,
    mixer_options: Mapping[str, Any] | None = None,
    activation: Literal["gelu", "relu", "swish"] = "gelu",
    compat: Literal["corrected", "published"] = "corrected",
    backend: Literal["auto", "cpu", "gpu", "reference"] = "auto",
) -> MaTrRec:
    """A MaTrRec for a data set; describe as of mamba4rec.build, the rest as of the class."""
    check_choice("model.size", size, SIZES, "model size")
    return MaTrRec(
        **from_describe(describe), channels=channels, layers=layers or SIZES[size]["layers"], heads=heads, dropout=dropout,
        hidden_dropout=hidden_dropout, attention_dropout=attention_dropout, mixer=mixer, scan=scan, d_state=d_state,
        d_conv=d_conv, expand=expand, mixer_options=mixer_options, activation=activation, compat=compat, backend=backend,
    )  # fmt: skip
