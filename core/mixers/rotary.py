"""Rotary position embedding (RoFormer, arXiv 2104.09864): pairs of channels turned by an angle that grows with the position."""

from __future__ import annotations

import torch
from torch import Tensor


def rotate(x: Tensor, position: Tensor, size: int, base: float = 10_000.0, interleaved: bool = False) -> Tensor:
    """Turn the first `size` channels of each head; those behind them stay as they are.

    Args:
        x: (batch, length, heads, channels).
        position: (batch, length) or (length,), of each token.
        size: channels that turn, even.
        base: pair i of size / 2 turns by base ** (-2 i / size) a position.
        interleaved: pairs are neighbours (0, 1), (2, 3), ...; else channel i goes with i + size / 2.
    """
    rate = base ** (-torch.arange(0, size, 2, dtype=torch.float32, device=x.device) / size)
    angle = position[..., None, None] * rate
    if angle.dim() == 3:
        angle = angle[None]
    kind = torch.promote_types(x.dtype, torch.float32)
    cos, sin = angle.cos().to(kind), angle.sin().to(kind)
    turning, rest = x[..., :size].to(kind), x[..., size:]
    if interleaved:
        first, second = turning[..., 0::2], turning[..., 1::2]
    else:
        first, second = turning.chunk(2, -1)
    turned = (first * cos - second * sin, first * sin + second * cos)
    turned = torch.stack(turned, -1).flatten(-2) if interleaved else torch.cat(turned, -1)
    return torch.cat([turned.to(x.dtype), rest], -1)
