"""The layer of Mamba4Rec and of what follows it: a mixer, dropout, a residual and a norm, then a position-wise network."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from .feed_forward import EPS, FeedForward


class NormedMixer(nn.Module):
    """LN(dropout(mixer(x)) + x), without the `+ x` where `residual` is not set.

    Args:
        mixer: gives (batch, length, channels) and what it carries on. channels: of the events.
        names: of the mixer and the norm in the paper's checkpoints. eps: of the norm.
    """

    def __init__(
        self, mixer: nn.Module, channels: int, dropout: float, residual: bool = True,
        names: tuple[str, str] = ("mamba", "LayerNorm"), eps: float = EPS,
    ):  # fmt: skip
        super().__init__()
        self.names, self.residual, self.dropout = names, residual, nn.Dropout(dropout)
        self.add_module(names[0], mixer)
        self.add_module(names[1], nn.LayerNorm(channels, eps))

    def forward(self, x: Tensor, *of_mixer: Any) -> tuple[Tensor, Any]:
        """(batch, length, channels) to the same, and what the mixer carries on; of_mixer: its further arguments."""
        mixer, norm = (getattr(self, name) for name in self.names)
        y, state = mixer(x, *of_mixer)
        y = self.dropout(y)
        return norm(y + x if self.residual else y), state


class MambaLayer(NormedMixer):
    """A NormedMixer, then the position-wise network `ffn`, four times as wide, where there is one.

    Args:
        of_ffn: FeedForward's options; None: there is none. The rest as of NormedMixer.
    """

    def __init__(
        self, mixer: nn.Module, channels: int, dropout: float, residual: bool,
        of_ffn: Mapping[str, Any] | None = MappingProxyType({}), **options: Any,
    ):  # fmt: skip
        super().__init__(mixer, channels, dropout, residual, **options)
        self.ffn = None if of_ffn is None else FeedForward(channels, 4 * channels, dropout, **of_ffn)

    def forward(self, x: Tensor, *of_mixer: Any) -> tuple[Tensor, Any]:
        """As of NormedMixer."""
        x, state = super().forward(x, *of_mixer)
        return x if self.ffn is None else self.ffn(x), state
