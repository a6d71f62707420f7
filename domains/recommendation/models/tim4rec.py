"""TiM4Rec (arXiv 2409.16182): Mamba-2 layers whose step sizes are scaled by the time that passed between events.

Names are those of the authors' code (hidden_size 64, two layers, d_state 32, heads of 32).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from ....core.errors import UserError, check_choice
from ....core.ranges import Depth, Positive, Rate, Size, checked
from .feed_forward import EPS
from .mixing import Backend
from .normed import MambaLayer
from .rows import Rows, check_padding
from .sequential import SIZES, Compat, Events, SequentialModel, check_compat, from_describe, init_normal
from .ssd4rec import FFN, NAMES, init_convolutions
from .state_space import StateSpace, falls_back


class TimeScaledStateSpace(StateSpace):
    """A StateSpace whose step sizes are scaled by time differences, which it also hands on to the next layer.

    Args:
        length: events of a row. time_dropout: of the differences. by_place: the gate between the differences and what the layer
            makes of them is one a place, instead of one for all. The rest as of StateSpace.
    """

    def __init__(self, channels: int, length: int, *sizes, time_dropout: float, by_place: bool, eps: float, **options):
        super().__init__(channels, *sizes, eps=eps, **options)
        for name in ("conv1d4time_1", "conv1d4time_2"):
            self.add_module(name, nn.Conv1d(self.heads, self.heads, self.d_conv, groups=self.heads))
        self.mlp4time_scale = nn.Sequential(
            nn.Dropout(time_dropout), nn.Linear(length, length), nn.SiLU(), nn.Linear(length, length)
        )
        gate = nn.Linear(length, length if by_place else 1)
        self.time_gate_residual = nn.Sequential(nn.Dropout(time_dropout), gate, nn.Sigmoid())
        self.time_layer_norm = nn.LayerNorm(length, eps)

    def scales(self, passed: Tensor, real: Tensor | None) -> tuple[Tensor, Tensor]:
        """Time differences (rows, heads, length) to scales (rows, length, heads), and to the next layer's differences.

        Args:
            real: (rows, length), true at events; None: all places count.
        """
        scale = (passed * self.mlp4time_scale(passed)).transpose(1, 2)
        for layer in (self.conv1d4time_1, self.conv1d4time_2):
            scale, _ = self.convolved(scale, layer, None, None)
        gate = self.time_gate_residual(passed)
        passed = norm_over_time(self.time_layer_norm, gate * passed + (1 - gate) * scale.transpose(1, 2), real)
        return scale, passed


class TiM4Rec(SequentialModel):
    """TiM4Rec. It reads a history, and the times in it, as a whole: norms and layers run over all time differences of a row.

    What the last layer would hand on is read by nobody, in the authors' code too: its `time_gate_residual` and `time_layer_norm`
    are among the keys and do not learn.

    Args:
        items, length, behaviours, features: see SequentialModel; padded on the right in the authors' code. Longer histories
            are refused: there is a weight for every pair of places.
        channels, layers, dropout, ffn: width, number of layers, dropout, whether layers have a position-wise network.
        time_dropout, timed, by_place: dropout of the time differences, whether there are any, and see TimeScaledStateSpace.
        head_channels, d_state, d_conv, expand: of Mamba-2. eps: of the norms.
        compat: "corrected": differences begin with 0 at each history's first event and are 0 at padding, norms over time are
            over the events alone, SiLU behind convolutions, a residual around every state space, Mamba's own start.
            "published", as the authors' code: padding (right) has whatever times are given there, counts as an event and in
            the norms; Hardswish where the number of heads is no multiple of 8; no residual where there is one layer; the
            start overwrites Mamba's.
        backend: of the operators.
    """

    def __init__(
        self,
        items: Size,
        length: Size,
        channels: Size = 64,
        layers: Depth = 2,
        dropout: Rate = 0.2,
        time_dropout: Rate = 0.2,
        head_channels: Size = 32,
        d_state: Size = 32,
        d_conv: Size = 4,
        expand: Positive = 2,
        ffn: bool = True,
        timed: bool = True,
        by_place: bool = False,
        eps: float = EPS,
        compat: Compat = "corrected",
        backend: Backend = "auto",
        **inputs: Any,
    ):
        super().__init__(items, length, channels, **inputs)
        check_compat(compat)
        self.published, self.timed, self.causal = compat == "published", timed, not timed
        self.dropout, self.in_layer_norm = nn.Dropout(dropout), nn.LayerNorm(channels, eps)
        if timed:
            self.layer_norm_time = nn.LayerNorm(length, eps)
        sizes = (d_state, d_conv, expand, head_channels)
        options = {"eps": eps, "backend": backend}
        options["hardswish"] = self.published and falls_back(int(expand * channels), head_channels)
        self.ssd_layers = nn.ModuleList()
        for _ in range(layers):
            if timed:
                extra = {"time_dropout": time_dropout, "by_place": by_place}
                mixer = TimeScaledStateSpace(channels, length, *sizes, **extra, **options)
            else:
                mixer = StateSpace(channels, *sizes, **options)
            residual = layers > 1 or not self.published
            layer = {"names": NAMES, "eps": eps, "of_ffn": FFN if ffn else None}
            self.ssd_layers.append(MambaLayer(mixer, channels, dropout, residual, **layer))
        init_normal(self, compat=compat)
        if self.published:
            init_convolutions(self)
        if timed:
            last = self.ssd_layers[-1].ssd
            for unread in (last.time_gate_residual, last.time_layer_norm):
                unread.requires_grad_(False)

    def run(self, events: Events, states: tuple | None) -> tuple[Tensor, tuple]:
        x = self.in_layer_norm(self.dropout(self.embed(events)))
        if self.timed:
            return self._run_timed(x, events), ()
        after = []
        for layer, state in zip(self.ssd_layers, states or [None] * len(self.ssd_layers), strict=True):
            x, state = layer(x, None, state, events.seq_idx)
            after.append(state)
        return x, tuple(after)

    def _run_timed(self, x: Tensor, events: Events) -> Tensor:
        if events.times is None:
            raise UserError("TiM4Rec reads the events' times", given="times=None", allowed="(batch, length), seconds")
        rows, seq_idx, real = None, None, None
        times, longest = events.times, x.shape[1]
        if not self.published:
            rows = Rows(events.number, self.length)
            longest = int(rows.lengths.max()) if len(rows.lengths) else 0
        if longest > self.length:
            raise UserError(
                "a history is longer than the model's", given=f"{longest} events", allowed=f"at most {self.length}",
                do="keep the last events, or make a model of that length",
            )  # fmt: skip
        if rows is None:
            check_padding(events.number, "right")
            rest = self.length - x.shape[1]
            x, times = F.pad(x, (0, 0, 0, rest)), F.pad(times, (0, rest))
        else:
            x, times, seq_idx = rows.apart(x), rows.apart(times), rows.seq_idx
            real = seq_idx >= 0
        if not len(x):
            return rows.together(x) if rows is not None else x[:, : events.items.shape[1]]
        passed = F.pad(times.diff(dim=1), (1, 0)).to(x.dtype)  # not before: seconds since 1970 are coarse in float32
        passed = norm_over_time(self.layer_norm_time, self.dropout(passed), real)
        passed = passed[:, None].expand(-1, self.ssd_layers[0].ssd.heads, -1)
        for layer in self.ssd_layers:
            scale, passed = layer.ssd.scales(passed, None if real is None else real[:, None])
            x, _ = layer(x, None, None, seq_idx, scale)
        return x[:, : events.items.shape[1]] if rows is None else rows.together(x)


def norm_over_time(norm: nn.LayerNorm, x: Tensor, real: Tensor | None) -> Tensor:
    """A layer norm over the last axis, time; where `real` is given over the real places alone, and 0 at the others."""
    if real is None:
        return norm(x)
    count = real.sum(-1, keepdim=True).clamp_min(1)
    centred = (x - (x * real).sum(-1, keepdim=True) / count) * real
    variance = centred.square().sum(-1, keepdim=True) / count
    return (centred * (variance + norm.eps).rsqrt() * norm.weight + norm.bias) * real


@checked(group="model")
def build(
    describe: Mapping[str, Any],
    size: Literal["one-layer", "two-layers"] = "two-layers",
    channels: Size = 64,
    layers: Depth | None = None,
    dropout: Rate = 0.2,
    time_dropout: Rate = 0.2,
    head_channels: Size = 32,
    d_state: Size = 32,
    d_conv: Size = 4,
    expand: Positive = 2,
    ffn: bool = True,
    timed: bool = True,
    by_place: bool = False,
    compat: Literal["corrected", "published"] = "corrected",
    backend: Literal["auto", "cpu", "gpu", "reference"] = "auto",
) -> TiM4Rec:
    """A TiM4Rec for a data set; describe as of mamba4rec.build, the rest as of the class."""
    check_choice("model.size", size, SIZES, "model size")
    return TiM4Rec(
        **from_describe(describe), channels=channels, layers=layers or SIZES[size]["layers"], dropout=dropout,
        time_dropout=time_dropout, head_channels=head_channels, d_state=d_state, d_conv=d_conv, expand=expand, ffn=ffn,
        timed=timed, by_place=by_place, compat=compat, backend=backend,
    )  # fmt: skip
