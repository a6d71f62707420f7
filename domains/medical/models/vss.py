"""What the U-Nets of VMamba's first blocks are made of; maps are (batch, height, width, channels).

(Liu et al. 2024, VMamba, arXiv 2401.10166.) Parameter names are those of the published codes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from timm.layers import DropPath
from torch import Tensor, nn

from ....core.mixers.ss2d import SS2D
from ....core.scans import Scan
from .tokens import as_scan

SIZES = {
    "micro": {"dims": (8, 16, 32, 64), "depths": (1, 1, 1, 1)},
    "small": {"dims": (32, 64, 128, 256), "depths": (2, 2, 2, 2)},
    "full": {"dims": (96, 192, 384, 768), "depths": (2, 2, 2, 2)},
}


class Mixing(NamedTuple):
    """How the blocks of a network mix: scan, whether at all, and further options of SS2D."""

    scan: str | Scan
    mamba: bool
    options: Mapping


class VSSBlock(nn.Module):
    """x + SS2D(LayerNorm(x)), without an MLP, as in VMamba's first version."""

    def __init__(self, width: int, mixing: Mixing, index: int, drop_path: float = 0.0):
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.self_attention = SS2D(width, scan=as_scan(mixing.scan).layer(index), **mixing.options)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        sizes = tuple(x.shape[1:3])
        mixed = self.self_attention(self.ln_1(x).flatten(1, 2), sizes)[0]
        return x + self.drop_path(mixed.unflatten(1, sizes))


def blocks(width: int, depth: int, mixing: Mixing, first: int, rates: Sequence[float] | None = None) -> nn.ModuleList:
    """Blocks of a stage, numbered from `first`; none of them without Mamba."""
    rates = rates or [0.0] * depth
    made = range(depth) if mixing.mamba else ()
    return nn.ModuleList(VSSBlock(width, mixing, first + number, rates[number]) for number in made)


class PatchEmbed(nn.Module):
    """(batch, channels, height, width) -> (batch, height / patch, width / patch, width of a token)."""

    def __init__(self, channels: int, width: int, patch: int):
        super().__init__()
        self.proj, self.norm = nn.Conv2d(channels, width, patch, patch), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x).movedim(1, -1))


class PatchMerging(nn.Module):
    """Four neighbours into one token of twice the channels; height and width are even."""

    def __init__(self, width: int):
        super().__init__()
        self.norm, self.reduction = nn.LayerNorm(4 * width), nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        parts = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.reduction(self.norm(torch.cat(parts, -1)))


class Stage(nn.Module):
    """Blocks, then a merging of patches where there is one."""

    def __init__(
        self, width: int, depth: int, mixing: Mixing, first: int, merges: bool, rates: Sequence[float] | None = None
    ):
        super().__init__()
        self.blocks = blocks(width, depth, mixing, first, rates)
        self.downsample = PatchMerging(width) if merges else None

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


def rising(rate: float, depths: Sequence[int]) -> list[list[float]]:
    """Stochastic depth of each block, rising from 0 to `rate` over all stages."""
    total = sum(depths)
    rates = [rate * number / max(total - 1, 1) for number in range(total)]
    starts = [sum(depths[:number]) for number in range(len(depths))]
    return [rates[start : start + depth] for start, depth in zip(starts, depths, strict=True)]


def coloured(x: Tensor, channels: int) -> Tensor:
    """A grey image once a channel, for a network that was made for colours."""
    return x.expand(-1, channels, -1, -1) if x.shape[1] == 1 else x
