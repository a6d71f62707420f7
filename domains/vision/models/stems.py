"""From an image to the first map of tokens of a hierarchical model, and from one map to the next, by convolutions."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class ChannelsLast(nn.Module):
    """(batch, channels, height, width) to (batch, height, width, channels)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1)


class ChannelsFirst(nn.Module):
    """(batch, height, width, channels) to (batch, channels, height, width)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2)


class PatchConvolution(nn.Conv2d):
    """Projects patches side by side; the last ones are filled up with zeros."""

    def forward(self, x: Tensor) -> Tensor:
        side = self.stride[0]
        return super().forward(F.pad(x, (0, -x.shape[-1] % side, 0, -x.shape[-2] % side)))


def patch_stem(in_chans: int, channels: int, stride: int, **factory) -> nn.Sequential:
    """Patches of `stride` pixels, projected and normalised; by position the names of VMamba's first checkpoints."""
    patches = PatchConvolution(in_chans, channels, stride, stride, **factory)
    return nn.Sequential(patches, ChannelsLast(), nn.LayerNorm(channels, **factory))


def overlapping_stem(in_chans: int, channels: int, stride: int, **factory) -> nn.Sequential:
    """Two convolutions of 3x3, each with a stride of 2 where `stride` is 4; 2: the second has none, 1: none has."""
    first, second = {4: (2, 2), 2: (2, 1), 1: (1, 1)}[stride]
    half = channels // 2
    return nn.Sequential(
        nn.Conv2d(in_chans, half, 3, first, 1, **factory), ChannelsLast(), nn.LayerNorm(half, **factory), ChannelsFirst(),
        nn.GELU(), nn.Conv2d(half, channels, 3, second, 1, **factory), ChannelsLast(), nn.LayerNorm(channels, **factory),
    )  # fmt: skip


def convolved_downsample(channels: int, outputs: int, **factory) -> nn.Sequential:
    """Halves a map by a convolution of 3x3 with a stride of 2, and normalises."""
    convolution = nn.Conv2d(channels, outputs, 3, 2, 1, **factory)
    return nn.Sequential(ChannelsFirst(), convolution, ChannelsLast(), nn.LayerNorm(outputs, **factory))
