"""Taking tokens that are not on the grid (class tokens) out of a sequence, and putting them back."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor


def without_extra(x: Tensor, extra: tuple[int, ...]) -> Tensor:
    """The grid tokens of (batch, length, channels): (batch, length - extra, channels).

    Args:
        extra: ascending positions of the other tokens in the sequence.
    """
    if not extra:
        return x
    edges = [-1, *extra, x.shape[1]]
    return torch.cat([x[:, before + 1 : after] for before, after in itertools.pairwise(edges)], 1)


def extra_alone(x: Tensor, extra: tuple[int, ...]) -> Tensor:
    """The other tokens: (batch, extra, channels)."""
    return torch.cat([x[:, position : position + 1] for position in extra], 1)


def with_extra(tokens: Tensor, others: Tensor, extra: tuple[int, ...]) -> Tensor:
    """The sequence (batch, tokens + extra, channels) in which `others` (batch, extra, channels) stand at positions `extra`."""
    pieces, begin = [], 0
    for number, position in enumerate(extra):
        end = position - number
        pieces += [tokens[:, begin:end], others[:, number : number + 1]]
        begin = end
    return torch.cat([*pieces, tokens[:, begin:]], 1)
