"""Turned keys in plain PyTorch: their definition."""

from __future__ import annotations

import torch
from torch import Tensor


def turned_keys_reference(
    B: Tensor, C: Tensor, B_bias: Tensor, C_bias: Tensor, angle: Tensor, halves: bool
) -> tuple[Tensor, Tensor]:
    """Arguments as of turned_keys, `halves` for its rotation."""
    angle = angle.unsqueeze(3)
    cos, sin, rotation = angle.cos(), angle.sin(), "halves" if halves else "pairs"

    def turned(t: Tensor, bias: Tensor) -> Tensor:
        heads, groups = bias.shape[0], t.shape[3]
        each = t if groups in (1, heads) else t.repeat_interleave(heads // groups, dim=3)
        return turn((each + bias.transpose(0, 1))[:, None], cos, sin, rotation).to(t.dtype)

    return turned(B, B_bias), turned(C, C_bias)


def turn(x: Tensor, cos: Tensor, sin: Tensor, rotation: str) -> Tensor:
    """Turn pairs of channels (a, b) into (a cos - b sin, a sin + b cos); channels without an angle stay as they are.

    Args:
        x: (..., channels).
        cos, sin: (..., pairs), of the angles, at most channels / 2 pairs; the leading axes are broadcast with x's.
        rotation: pair i is channels (2 i, 2 i + 1) for "pairs", (i, i + channels / 2) for "halves".
    """
    pairs, channels = cos.shape[-1], x.shape[-1]
    x = x.expand(*torch.broadcast_shapes(x.shape[:-1], cos.shape[:-1]), -1)
    if rotation == "pairs":
        both, rest = x.split([2 * pairs, channels - 2 * pairs], -1)
        a, b = both.unflatten(-1, (pairs, 2)).unbind(-1)
        turned = torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2)
        return torch.cat([turned, rest], -1) if rest.shape[-1] else turned
    half = channels // 2
    a, still, b, still_too = x.split([pairs, half - pairs, pairs, channels - half - pairs], -1)
    return torch.cat([a * cos - b * sin, still, a * sin + b * cos, still_too], -1)
