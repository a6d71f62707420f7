"""SIGMA (arXiv 2408.11451): a Mamba that reads the history forwards and with its older part flipped, gates, and a GRU.

Names are those of the authors' code (hidden_size 64, d_state 32, one layer).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ....core.errors import check_choice
from ....core.ranges import Count, Depth, Positive, Rate, Size, checked
from ....core.scans import Scan
from .feed_forward import EPS
from .gru4rec import GRU
from .mixing import Backend, MixerName, make_mixer
from .normed import MambaLayer
from .rows import Rows, filled_up
from .sequential import SIZES, Compat, Events, SequentialModel, check_compat, from_describe, init_normal

SHARES = (0.1, 0.1, 0.8)  # of GRU, flipped and forward reading at the start
FLIPPED = 45  # events that the authors' code flips, whatever stands there
GATE_DROPOUT = 0.2


class GatedMamba(nn.Module):
    """The paper's G-Mamba block on rows of one history each, (rows, width, channels), from the left.

    Args:
        mixer: reads both orders. channels: of the events.
        kept: latest events that are not flipped.
        published: as in the authors' code, see SIGMA.
    """

    def __init__(self, mixer: nn.Module, channels: int, kept: int, published: bool):
        super().__init__()
        self.kept, self.published = kept, published
        shares = torch.tensor(SHARES)
        self.combining_weights = nn.Parameter(shares if published else shares.log())
        self.dense1, self.dense2, self.projection = (nn.Linear(channels, channels) for _ in range(3))
        self.mamba = mixer
        self.gru = GRU(channels, channels, bias=False, batch_first=True)
        self.selective_gate_sig = nn.Sequential(nn.Sigmoid(), nn.Linear(channels, channels))
        self.selective_gate_si = nn.Sequential(nn.SiLU(), nn.Linear(channels, channels))
        self.gate_dropout = nn.Dropout(GATE_DROPOUT)
        self.conv1d = nn.Conv1d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, lengths: Tensor, seq_idx: Tensor | None) -> tuple[Tensor, None]:
        """What comes out, and nothing to carry on.

        Args:
            lengths: (rows,) events of each. seq_idx: (rows, width), -1 behind them, or None where that counts too.
        """
        if seq_idx is not None:  # the convolution looks one event ahead
            x = x.masked_fill((seq_idx < 0)[..., None], 0)
        order = self.flip(lengths, x.shape[1])[..., None]
        flipped = x.take_along_dim(order, 1)
        both = None if seq_idx is None else torch.cat([seq_idx, seq_idx])
        ahead, back = self.mamba(torch.cat([x, flipped]), None, None, both)[0].chunk(2)
        gate = self._gate(x + self.dense1(x))
        late = flipped + self.dense2(flipped)
        if self.published:
            back_gate = self.gate_dropout(self.selective_gate_si(late) + self.selective_gate_sig(gate))
        else:
            back_gate = self._gate(late)
        ahead, back = ahead * gate + ahead, back * back_gate + back
        if not self.published:
            back = back.take_along_dim(order, 1)
        recent, _ = self.gru(self.conv1d(x.transpose(1, 2)).transpose(1, 2))
        weights = self.combining_weights if self.published else self.combining_weights.softmax(0)
        return self.projection(weights[2] * ahead + weights[1] * back + weights[0] * recent), None

    def flip(self, lengths: Tensor, width: int) -> Tensor:
        """(rows, width) int64: the event that comes at each place where all but the latest are flipped; its own inverse."""
        place = torch.arange(width, device=lengths.device).expand(len(lengths), -1)
        if self.published:
            turned = torch.full_like(lengths, min(FLIPPED, width))[:, None]
        else:
            turned = (lengths - self.kept).clamp_min(0)[:, None]
        return torch.where(place < turned, turned - 1 - place, place)

    def _gate(self, x: Tensor) -> Tensor:
        return self.gate_dropout(self.selective_gate_si(x) + self.selective_gate_sig(x))


class SIGMA(SequentialModel):
    """SIGMA over any mixer and scan of the core. It reads a history as a whole.

    Args:
        items, length, behaviours, features: see SequentialModel; padded on the right in the authors' code.
        channels, layers, dropout: width, number of layers, dropout.
        kept: latest events that stay in place when the others are flipped.
        mixer, mixer_options, d_state, d_conv, expand, scan: of the layers, see make_mixer.
        compat: "corrected": all but the `kept` latest events of each history are flipped, what comes of it is flipped back to
            its events, each reading has its own gate, the shares of the three readings are a softmax, padding is not read, a
            residual is around every block, and Mamba keeps its own start. "published", as the authors' code: rows are filled
            up to `length`, the first 45 places are flipped whatever stands there, the result is not flipped back, the second
            gate is fed the first, the shares are raw weights, padding (right, and item 0) is read, no residual where there is
            one layer, and the start overwrites Mamba's. (Their second call of the convolution, which fails unless length equals
            channels, has no effect and is left out.)
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
        kept: Count = 5,
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
        self.published = compat == "published"
        self.dropout, self.LayerNorm = nn.Dropout(dropout), nn.LayerNorm(channels, EPS)
        mixing = (channels, scan, d_state, d_conv, expand, mixer_options, backend)
        blocks = (GatedMamba(make_mixer(mixer, *mixing), channels, kept, self.published) for _ in range(layers))
        residual = layers > 1 or not self.published
        self.mamba_layers = nn.ModuleList(
            MambaLayer(block, channels, dropout, residual, names=("gmamba", "LayerNorm")) for block in blocks
        )
        init_normal(self, compat=compat)

    def run(self, events: Events, states: tuple | None) -> tuple[Tensor, tuple]:
        length, rows = events.items.shape[1], None
        if self.published:
            events = filled_up(events, self.length)
        x = self.LayerNorm(self.dropout(self.embed(events)))
        if self.published:
            lengths, seq_idx = (events.number >= 0).sum(1), None
        else:
            rows = Rows(events.number)
            x, lengths, seq_idx = rows.apart(x), rows.lengths, rows.seq_idx
        if x.shape[0] and x.shape[1]:
            for layer in self.mamba_layers:
                x, _ = layer(x, lengths, seq_idx)
        return x[:, :length] if rows is None else rows.together(x), ()


@checked(group="model")
def build(
    describe: Mapping[str, Any],
    scan: str | Scan = "raster",
    mixer: Literal["mamba", "mamba2", "mamba3", "s4d", "attention"] = "mamba",
    size: Literal["one-layer", "two-layers"] = "one-layer",
    channels: Size = 64,
    layers: Depth | None = None,
    dropout: Rate = 0.2,
    kept: Count = 5,
    d_state: Size = 32,
    d_conv: Size = 4,
    expand: Positive = 2,
    mixer_options: Mapping[str, Any] | None = None,
    compat: Literal["corrected", "published"] = "corrected",
    backend: Literal["auto", "cpu", "gpu", "reference"] = "auto",
) -> SIGMA:
    """A SIGMA for a data set; describe as of mamba4rec.build, the rest as of the class."""
    check_choice("model.size", size, SIZES, "model size")
    return SIGMA(
        **from_describe(describe), channels=channels, layers=layers or SIZES[size]["layers"], dropout=dropout, kept=kept,
        mixer=mixer, scan=scan, d_state=d_state, d_conv=d_conv, expand=expand, mixer_options=mixer_options, compat=compat,
        backend=backend,
    )  # fmt: skip
