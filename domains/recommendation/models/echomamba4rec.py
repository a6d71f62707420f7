"""EchoMamba4Rec (arXiv 2406.02638): a learnt filter over frequencies, Mambas in both directions, a gated linear unit.

Names are those of the authors' code (hidden_size 64, d_state 32, one layer).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ....core.errors import UserError, check_choice
from ....core.ranges import Depth, Positive, Rate, Size, checked
from .feed_forward import EPS
from .mixing import Backend, MixerName, make_mixer
from .rows import Rows, filled_up
from .sequential import SIZES, Compat, Events, SequentialModel, check_compat, from_describe, init_normal

HEADS = 4  # of the attention that the authors' code never calls


class FilterLayer(nn.Module):
    """LN(x + dropout(irfft(weight * rfft(x)))); weight: a complex number a frequency, of those of `length` events, and channel."""

    def __init__(self, length: int, channels: int, dropout: float):
        super().__init__()
        self.length = length
        self.complex_weight = nn.Parameter(torch.randn(1, length // 2 + 1, channels, 2) * 0.02)
        self.dropout, self.LayerNorm = nn.Dropout(dropout), nn.LayerNorm(channels, EPS)

    def forward(self, x: Tensor) -> Tensor:
        """x: (rows, at most `length`, channels), as if zeros stood behind it."""
        kind = torch.promote_types(x.dtype, torch.float32)  # transforms know nothing less
        weight = torch.view_as_complex(self.complex_weight.to(kind))
        spectrum = torch.fft.rfft(x.to(kind), n=self.length, dim=1, norm="ortho") * weight
        y = torch.fft.irfft(spectrum, n=self.length, dim=1, norm="ortho")[:, : x.shape[1]].to(x.dtype)
        return self.LayerNorm(x + self.dropout(y))


class GatedLinearUnit(nn.Module):
    """LN(dropout(x + fc2(a * sigmoid(b)))) with a, b the halves of fc1(x)."""

    def __init__(self, channels: int, dropout: float):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(channels, 2 * channels), nn.Linear(channels, channels)
        self.dropout, self.LayerNorm = nn.Dropout(dropout), nn.LayerNorm(channels, EPS)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.fc1(x).chunk(2, -1)
        return self.LayerNorm(self.dropout(x + self.fc2(value * torch.sigmoid(gate))))


class UncalledAttention(nn.Module):
    """Parameters that the authors' checkpoints hold and their model never reads: 62,592 of 169,408 at its own sizes."""

    def __init__(self, channels: int, dropout: float):
        super().__init__()
        self.multihead_attn = nn.MultiheadAttention(channels, HEADS if channels % HEADS == 0 else 1)
        self.glu = GatedLinearUnit(channels, dropout)
        self.linear1, self.linear2 = nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, channels)
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)


class EchoLayer(nn.Module):
    """Filter, pairs of mixers (one reads forwards, one backwards: each LN(dropout(mixer(x)) + x), summed), gated unit."""

    def __init__(
        self, mixers: list[tuple[nn.Module, nn.Module]], length: int, channels: int, dropout: float, uncalled: bool
    ):
        super().__init__()
        self.filter_layer = FilterLayer(length, channels, dropout)
        self.norms_forward = nn.ModuleList(nn.LayerNorm(channels) for _ in mixers)
        self.norms_backward = nn.ModuleList(nn.LayerNorm(channels) for _ in mixers)
        self.mamba_forwards = nn.ModuleList(pair[0] for pair in mixers)
        self.mamba_backwards = nn.ModuleList(pair[1] for pair in mixers)
        self.dropout, self.glu = nn.Dropout(dropout), GatedLinearUnit(channels, dropout)
        if uncalled:
            self.multi_query_transformer_block = UncalledAttention(channels, dropout)

    def forward(self, x: Tensor, seq_idx: Tensor | None) -> Tensor:
        """(rows, length, channels); seq_idx: (rows, length), -1 behind the events, or None where that counts too."""
        if seq_idx is not None:
            x = x.masked_fill((seq_idx < 0)[..., None], 0)
        x = self.filter_layer(x)
        for ahead, norm_ahead, back, norm_back in zip(
            self.mamba_forwards, self.norms_forward, self.mamba_backwards, self.norms_backward, strict=True
        ):
            said, echoed = (self.dropout(mixer(x, None, None, seq_idx)[0]) for mixer in (ahead, back))
            x = norm_ahead(said + x) + norm_back(echoed + x)
        return self.glu(x)


class EchoMamba4Rec(SequentialModel):
    """EchoMamba4Rec over any mixer of the core. It reads a history as a whole.

    Args:
        items, length, behaviours, features: see SequentialModel; padded on the right in the authors' code. The filter has a
            weight for each frequency of `length` events: shorter histories are filled up with zeros, longer ones refused.
        channels, layers, dropout: width, number of layers, dropout.
        mixer, mixer_options, d_state, d_conv, expand: of the pairs, see make_mixer.
        compat: "corrected": one pair of mixers a layer, as in the paper; padding is zero for the filter and not read by the
            mixers, the backward one begins at the last event; Mamba's own start. "published", as the authors' code: each of
            the layers holds as many pairs as there are layers, padding (right, item 0) is read, an attention block that
            nothing calls is among the parameters, the start overwrites Mamba's.
        backend: of the operators.
    """

    causal = False

    def __init__(
        self,
        items: Size,
        length: Size,
        channels: Size = 64,
        layers: Depth = 1,
        dropout: Rate = 0.2,
        mixer: MixerName = "mamba",
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
        if mixer == "attention":
            raise UserError(
                "attention has no backward reading", given=f"mixer={mixer}", allowed="mamba, mamba2, mamba3, s4d"
            )
        self.published = compat == "published"
        self.dropout, self.LayerNorm = nn.Dropout(dropout), nn.LayerNorm(channels, EPS)
        mixing = (d_state, d_conv, expand, mixer_options, backend)
        pairs = layers if self.published else 1
        self.mamba_layers = nn.ModuleList()
        for _ in range(layers):
            mixers = [
                tuple(make_mixer(mixer, channels, scan, *mixing) for scan in ("raster", "reverse"))
                for _ in range(pairs)
            ]
            self.mamba_layers.append(EchoLayer(mixers, length, channels, dropout, self.published))
        init_normal(self, compat=compat)

    def run(self, events: Events, states: tuple | None) -> tuple[Tensor, tuple]:
        length = events.items.shape[1]
        if self.published:
            events = filled_up(events, self.length)
        x = self.LayerNorm(self.dropout(self.embed(events)))
        rows = None if self.published else Rows(events.number)
        longest = length if rows is None else rows.width
        if longest > self.length:
            raise UserError(
                "a history is longer than the model's filter", given=f"{longest} events", allowed=f"at most {self.length}",
                do="keep the last events, or make a model of that length",
            )  # fmt: skip
        x = x if rows is None else rows.apart(x)
        for layer in self.mamba_layers if len(x) else ():
            x = layer(x, None if rows is None else rows.seq_idx)
        return x[:, :length] if rows is None else rows.together(x), ()


@checked(group="model")
def build(
    describe: Mapping[str, Any],
    mixer: Literal["mamba", "mamba2", "mamba3", "s4d"] = "mamba",
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
) -> EchoMamba4Rec:
    """An EchoMamba4Rec for a data set; describe as of mamba4rec.build, the rest as of the class."""
    check_choice("model.size", size, SIZES, "model size")
    return EchoMamba4Rec(
        **from_describe(describe), channels=channels, layers=layers or SIZES[size]["layers"], dropout=dropout, mixer=mixer,
        d_state=d_state, d_conv=d_conv, expand=expand, mixer_options=mixer_options, compat=compat, backend=backend,
    )  # fmt: skip
