"""SSD4Rec (arXiv 2409.01192): Mamba-2 layers with position-wise networks over histories of any length.

Names are those of the form that TiM4Rec's authors compare with (hidden_size 64, two layers, d_state 32, heads of 32). The paper
itself reads both ways, `scan="bidirectional"`; its masks against padding are seq_idx here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ....core.errors import UserError, check_choice
from ....core.ranges import Depth, Positive, Rate, Size, checked
from ....core.scans import Scan
from .feed_forward import EPS, TIM4REC
from .mixing import Backend, MixerName, is_causal, make_mixer
from .normed import MambaLayer
from .sequential import SIZES, Compat, Events, SequentialModel, check_compat, from_describe, init_normal
from .state_space import StateSpace, check_heads, falls_back

NAMES = ("ssd", "layer_norm")  # of a layer's mixer and norm
FFN = {"activation": "hardswish", "names": TIM4REC}


class SSD4Rec(SequentialModel):
    """SSD4Rec over any mixer and scan of the core.

    Args:
        items, length, behaviours, features: see SequentialModel; padded on the right in the authors' code.
        channels, layers, dropout, ffn: width, number of layers, dropout, whether layers have a position-wise network.
        head_channels: inner channels of a head of Mamba-2. mixer, mixer_options, d_state, d_conv, expand, scan: see make_mixer.
        eps: of the norms (but the position-wise network's, 1e-12).
        compat: "corrected": SiLU behind the convolution, a residual around every mixer, Mamba's own start. "published": as
            the authors' code, Hardswish where the number of heads is no multiple of 8, no residual where there is one
            layer, and a start that overwrites Mamba's.
        backend: of the operators.
    """

    def __init__(
        self,
        items: Size,
        length: Size,
        channels: Size = 64,
        layers: Depth = 2,
        dropout: Rate = 0.2,
        head_channels: Size = 32,
        mixer: MixerName = "mamba2",
        scan: str | Scan = "raster",
        d_state: Size = 32,
        d_conv: Size = 4,
        expand: Positive = 2,
        mixer_options: Mapping[str, Any] | None = None,
        ffn: bool = True,
        eps: float = EPS,
        compat: Compat = "corrected",
        backend: Backend = "auto",
        **inputs: Any,
    ):
        super().__init__(items, length, channels, **inputs)
        check_compat(compat)
        self.causal, inner = is_causal(scan), int(expand * channels)
        self.dropout, self.in_layer_norm = nn.Dropout(dropout), nn.LayerNorm(channels, eps)
        if mixer == "mamba2":
            check_heads(inner, head_channels)
            own = {"headdim": head_channels, "bias": True, "norm_eps": eps}
            mixer_options = {**own, **(mixer_options or {})}
        hardswish = compat == "published" and mixer == "mamba2" and falls_back(inner, head_channels)
        if hardswish and not self.causal:
            raise UserError(
                "the published form reads forwards", given=f"scan={scan}", allowed="scan=raster, or compat=corrected"
            )
        self.ssd_layers = nn.ModuleList()
        for _ in range(layers):
            if hardswish:
                layer = StateSpace(channels, d_state, d_conv, expand, head_channels, True, eps, backend)
            else:
                layer = make_mixer(mixer, channels, scan, d_state, d_conv, expand, mixer_options, backend)
            residual = layers > 1 or compat == "corrected"
            options = {"names": NAMES, "eps": eps, "of_ffn": FFN if ffn else None}
            self.ssd_layers.append(MambaLayer(layer, channels, dropout, residual, **options))
        init_normal(self, compat=compat)
        if compat == "published":
            init_convolutions(self)

    def run(self, events: Events, states: tuple | None) -> tuple[Tensor, tuple]:
        x, after = self.in_layer_norm(self.dropout(self.embed(events))), []
        for layer, state in zip(self.ssd_layers, states or [None] * len(self.ssd_layers), strict=True):
            x, state = layer(x, None, state, events.seq_idx)
            after.append(state)
        return x, tuple(after)


@torch.no_grad()
def init_convolutions(model: nn.Module) -> None:
    """The authors' start of convolutions: He's normal by outputs, biases 0."""
    for module in model.modules():
        if isinstance(module, nn.Conv1d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


@checked(group="model")
def build(
    describe: Mapping[str, Any],
    scan: str | Scan = "raster",
    mixer: Literal["mamba", "mamba2", "mamba3", "s4d", "attention"] = "mamba2",
    size: Literal["one-layer", "two-layers"] = "two-layers",
    channels: Size = 64,
    layers: Depth | None = None,
    dropout: Rate = 0.2,
    head_channels: Size = 32,
    d_state: Size = 32,
    d_conv: Size = 4,
    expand: Positive = 2,
    mixer_options: Mapping[str, Any] | None = None,
    ffn: bool = True,
    compat: Literal["corrected", "published"] = "corrected",
    backend: Literal["auto", "cpu", "gpu", "reference"] = "auto",
) -> SSD4Rec:
    """An SSD4Rec for a data set; describe as of mamba4rec.build, the rest as of the class."""
    check_choice("model.size", size, SIZES, "model size")
    return SSD4Rec(
        **from_describe(describe), channels=channels, layers=layers or SIZES[size]["layers"], dropout=dropout,
        head_channels=head_channels, mixer=mixer, scan=scan, d_state=d_state, d_conv=d_conv, expand=expand,
        mixer_options=mixer_options, ffn=ffn, compat=compat, backend=backend,
    )  # fmt: skip
