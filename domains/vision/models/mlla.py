"""The macro design of MLLA (arXiv 2405.16605), which VSSD and Spatial-Mamba took over: its stem, its downsampling, its block.

Parameter names are those of their checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence

from timm.layers import Mlp
from torch import Tensor, nn

from ....core.grid_blocks import count_flops, mix_grid
from ....core.linear import normalised


class Convolved(nn.Module):
    """A convolution, padded to keep the map, with what may follow: a batch norm, ReLU. (batch, channels, height, width)."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, bias: bool = False,
        norm: bool = True, act: bool = True, **factory,
    ):  # fmt: skip
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=bias, **factory)
        self.norm = nn.BatchNorm2d(outputs, **factory) if norm else nn.Identity()
        self.act = nn.ReLU() if act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))


class ResidualStem(nn.Module):
    """From images to tokens of 4, 2 or 1 pixels each way: a convolution, a residual pair of them, a wide one and a narrow one.

    Args:
        in_chans, channels: of the images and of a token. stride: pixels of a token each way, 4, 2 or 1.
    """

    def __init__(self, in_chans: int, channels: int, stride: int, **factory):
        super().__init__()
        first, second = {4: (2, 2), 2: (2, 1), 1: (1, 1)}[stride]
        half = channels // 2
        self.conv1 = Convolved(in_chans, half, 3, first, **factory)
        self.conv2 = nn.Sequential(Convolved(half, half, 3, **factory), Convolved(half, half, 3, act=False, **factory))
        self.conv3 = nn.Sequential(
            Convolved(half, 4 * channels, 3, second, **factory), Convolved(4 * channels, channels, act=False, **factory)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, height, width) to (batch, rows, columns, channels)."""
        x = self.conv1(x)
        return self.conv3(x + self.conv2(x)).permute(0, 2, 3, 1)


class InvertedDownsample(nn.Module):
    """Halves a map, wide in between: (batch, height, width, channels) to (batch, height / 2, width / 2, outputs), rounded up."""

    def __init__(self, channels: int, outputs: int, **factory):
        super().__init__()
        wide = 4 * outputs
        self.conv = nn.Sequential(
            Convolved(channels, wide, bias=True, norm=False, **factory),
            Convolved(wide, wide, 3, 2, groups=wide, bias=True, norm=False, **factory),
            Convolved(wide, outputs, bias=True, act=False, **factory),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class PositionedBlock(nn.Module):
    """Adds what a mixer says of the normalised tokens, then what an MLP says; a depthwise convolution is added before each.

    Args:
        mixer: called as mixer(x, grid), returns (y, state).
    """

    def __init__(self, channels: int, mixer: nn.Module, mlp_ratio: float, drop_path: nn.Module, **factory):
        super().__init__()

        def positions() -> nn.Conv2d:
            return nn.Conv2d(channels, channels, 3, 1, 1, groups=channels, **factory)

        self.cpe1, self.norm1, self.attn = positions(), nn.LayerNorm(channels, **factory), mixer
        self.cpe2, self.norm2 = positions(), nn.LayerNorm(channels, **factory)
        self.mlp, self.drop_path = Mlp(channels, int(mlp_ratio * channels), **factory), drop_path

    def forward(self, x: Tensor) -> Tensor:
        """(batch, height, width, channels) to the same."""
        x = x + self.cpe1(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        x = x + self.drop_path(mix_grid(self.attn, normalised(self.norm1, x).to(x.dtype)))
        x = x + self.cpe2(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x + self.drop_path(self.mlp(normalised(self.norm2, x).to(x.dtype)))

    def flops(self, sizes: Sequence[int]) -> int:
        """Floating point operations over one grid."""
        return sum(count_flops(each, sizes)[0] for each in (self.cpe1, self.attn, self.cpe2, self.mlp))
