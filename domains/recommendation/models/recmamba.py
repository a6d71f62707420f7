"""RecMamba (arXiv 2403.16371): SASRec's inputs over lifelong histories, with bare Mambas; names are those of the authors' code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ....core.errors import UserError, check_choice
from ....core.ranges import Depth, Positive, Rate, Size, checked
from ....core.scans import Scan
from .mixing import Backend, MixerName, is_causal, make_mixer
from .rows import check_padding
from .sequential import SIZES, Compat, Events, SequentialModel, check_compat, from_describe, init_normal


class RecMamba(SequentialModel):
    """RecMamba: items times sqrt(channels) plus learned positions, then bare mixers `mamba1`, `mamba2`, ...

    The paper trains it with BCE against one sampled negative and ranks 1,000 sampled items; lengths up to 10,000.

    Args:
        items, length, behaviours, features: see SequentialModel; padded on the left in the authors' code.
        channels, layers, dropout: width (the authors': 64, whatever is asked for), number of mixers, dropout of the inputs.
        mixer, mixer_options, d_state, d_conv, expand, scan: of the layers, see make_mixer.
        compat: "corrected": padding on either side is not read, positions are counted from a history's first event, and a
            residual is around every mixer. "published", as the authors' code: positions count back from the row's end, so
            that padding on the left is read as item 0 with positions of its own and no state can be carried; no residual.
        backend: of the operators.
    """

    item_table: ClassVar[str] = "item_emb"

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
        super().__init__(items, length, channels, positions="pos_emb", **inputs)
        check_compat(compat)
        self.published, self.causal, self.layers = compat == "published", is_causal(scan), layers
        self.reads_padding = self.published
        self.dropout = nn.Dropout(dropout)
        for number in range(1, layers + 1):
            own = make_mixer(mixer, channels, scan, d_state, d_conv, expand, mixer_options, backend)
            self.add_module(f"mamba{number}", own)
        init_normal(self)

    @property
    def carries_state(self) -> bool:
        return self.causal and not self.published

    def run(self, events: Events, states: tuple | None) -> tuple[Tensor, tuple]:
        places, seq_idx = events.place, events.seq_idx
        if self.published:
            check_padding(events.number, "left")
            length, seq_idx = events.items.shape[1], None
            if length > self.length:
                raise UserError(
                    "a row is longer than the model's positions", given=length, allowed=f"at most {self.length}"
                )
            places = torch.arange(self.length - length, self.length, device=places.device).expand_as(places)
        x, after = self.dropout(self.embed(events, self.channels**0.5, places)), []
        for number, state in enumerate(states or [None] * self.layers, 1):
            y, state = getattr(self, f"mamba{number}")(x, None, state, seq_idx)
            x = y if self.published else x + y
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
) -> RecMamba:
    """A RecMamba for a data set; describe as of mamba4rec.build, the rest as of the class."""
    check_choice("model.size", size, SIZES, "model size")
    return RecMamba(
        **from_describe(describe), channels=channels, layers=layers or SIZES[size]["layers"], dropout=dropout, mixer=mixer,
        scan=scan, d_state=d_state, d_conv=d_conv, expand=expand, mixer_options=mixer_options, compat=compat, backend=backend,
    )  # fmt: skip
