"""Mamba4Rec (arXiv 2403.03900): item embedding, then layers of a mixer and a position-wise network, norms behind each.

Names are those of the authors' code (hidden_size 64, d_state 32, d_conv 4, expand 2).
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
from .normed import MambaLayer
from .sequential import SIZES, Compat, Events, SequentialModel, check_compat, from_describe, init_normal


class Mamba4Rec(SequentialModel):
    """Mamba4Rec over any mixer and scan of the core.

    Args:
        items, length, behaviours, features: see SequentialModel; padded on the right in the authors' code.
        channels, layers, dropout: width, number of layers, and dropout (the authors': 0.2 on MovieLens, 0.4 on Amazon).
        mixer, mixer_options, d_state, d_conv, expand: of the layers, see make_mixer.
        scan: in which order a layer visits the events; only "raster" is causal.
        compat: "corrected": a residual around every mixer, as in the paper's figure 1, and Mamba's own start. "published": as
            the authors' code, no residual where there is one layer, and a start that overwrites Mamba's.
        backend: of the operators.
    """

    def __init__(
        self,
        items: Size,
        length: Size,
        channels: Size = 64,
        layers: Depth = 1,
        dropout: Rate = 0.2,
        mixer: MixerName = "mamba",
        scan: str | Scan = "raster",
        d_state: Size = 32,
        d_conv: Size = 4,
        expand: Positive = 2,
        mixer_options: Mapping[str, Any] | None = None,
        compat: Compat = "corrected",
        backend: Backend = "auto",
        **inputs: Any,
    ):
        super().__init__(items, length, channels, **inputs)
        check_compat(compat)
        self.causal = is_causal(scan)
        self.dropout, self.LayerNorm = nn.Dropout(dropout), nn.LayerNorm(channels, EPS)
        residual = layers > 1 or compat == "corrected"
        mixing = (channels, scan, d_state, d_conv, expand, mixer_options, backend)
        self.mamba_layers = nn.ModuleList(
            MambaLayer(make_mixer(mixer, *mixing), channels, dropout, residual) for _ in range(layers)
        )
        init_normal(self, compat=compat)

    def run(self, events: Events, states: tuple | None) -> tuple[Tensor, tuple]:
        x, after = self.LayerNorm(self.dropout(self.embed(events))), []
        for layer, state in zip(self.mamba_layers, states or [None] * len(self.mamba_layers), strict=True):
            x, state = layer(x, None, state, events.seq_idx)
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
    dropout: Rate = 0.2,
    d_state: Size = 32,
    d_conv: Size = 4,
    expand: Positive = 2,
    mixer_options: Mapping[str, Any] | None = None,
    compat: Literal["corrected", "published"] = "corrected",
    backend: Literal["auto", "cpu", "gpu", "reference"] = "auto",
) -> Mamba4Rec:
    """A Mamba4Rec for a data set; arguments as of the class.

    Args:
        describe: items, length and, where there are any, behaviours and features of the data set.
        size: the paper's "one-layer" or "two-layers". layers: other than the size's.
    """
    check_choice("model.size", size, SIZES, "model size")
    return Mamba4Rec(
        **from_describe(describe), channels=channels, layers=layers or SIZES[size]["layers"], dropout=dropout, mixer=mixer,
        scan=scan, d_state=d_state, d_conv=d_conv, expand=expand, mixer_options=mixer_options, compat=compat, backend=backend,
    )  # fmt: skip
