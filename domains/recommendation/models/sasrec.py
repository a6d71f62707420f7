"""SASRec (arXiv 1808.09781): causal attention over learned positions, in RecBole's form, whose names it has.

The loss makes much of the difference (arXiv 2309.07602: cross-entropy over all items instead of one sampled negative): it is the
task's. Known differences of this form from the paper: norms behind each half, GELU, no norm at the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn

from ....core.errors import check_choice
from ....core.ranges import Depth, Rate, Size, checked
from .feed_forward import EPS
from .sequential import SIZES, Events, SequentialModel, from_describe, init_normal
from .transformer import TransformerEncoder

Activation = Literal["gelu", "relu", "swish"]


class SASRec(SequentialModel):
    """SASRec.

    Args:
        items, length, behaviours, features: see SequentialModel; padded on the right in RecBole. Positions are counted from a
            history's first event.
        channels, layers, heads, inner: width, layers, attention heads, width of the position-wise network (None: 4 channels).
        dropout, attention_dropout: behind each half and the embeddings; of the attention's weights.
        activation, eps: of the position-wise network; of the norms.
    """

    def __init__(
        self,
        items: Size,
        length: Size,
        channels: Size = 64,
        layers: Depth = 2,
        heads: Size = 2,
        inner: Size | None = None,
        dropout: Rate = 0.5,
        attention_dropout: Rate = 0.5,
        activation: Activation = "gelu",
        eps: float = EPS,
        **inputs: Any,
    ):
        super().__init__(items, length, channels, positions="position_embedding", **inputs)
        self.trm_encoder = TransformerEncoder(
            layers, channels, heads, inner or 4 * channels, dropout, attention_dropout, activation, eps
        )
        self.LayerNorm, self.dropout = nn.LayerNorm(channels, eps), nn.Dropout(dropout)
        init_normal(self)

    def run(self, events: Events, states: tuple | None) -> tuple[Tensor, tuple]:
        return self.trm_encoder(self.dropout(self.LayerNorm(self.embed(events))), events, states, True)


@checked(group="model")
def build(
    describe: Mapping[str, Any],
    size: Literal["one-layer", "two-layers"] = "two-layers",
    channels: Size = 64,
    layers: Depth | None = None,
    heads: Size = 2,
    inner: Size | None = None,
    dropout: Rate = 0.5,
    attention_dropout: Rate = 0.5,
    activation: Literal["gelu", "relu", "swish"] = "gelu",
) -> SASRec:
    """A SASRec for a data set; describe as of mamba4rec.build, the rest as of the class."""
    check_choice("model.size", size, SIZES, "model size")
    return SASRec(
        **from_describe(describe), channels=channels, layers=layers or SIZES[size]["layers"], heads=heads, inner=inner,
        dropout=dropout, attention_dropout=attention_dropout, activation=activation,
    )  # fmt: skip
