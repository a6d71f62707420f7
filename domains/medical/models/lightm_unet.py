"""LightM-UNet (Liao et al. 2024, arXiv 2403.05246): a U-Net whose encoder is made of Mamba layers and whose decoder is depthwise.

Parameter names are those of the published code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....core.errors import UserError
from ....core.ranges import Size, checked
from ....core.scans import Scan
from ...padding import cropped, filled_up
from .residual import CONVOLUTIONS
from .stages import described, stages_of
from .tokens import mamba as new_mamba
from .tokens import mixed, to_map, to_tokens

POOLS = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
GROUPS = 8
DEPTHS = (1, 2, 2, 4)


class ResidualMamba(nn.Module):
    """norm(Mamba(norm(x)) + s x), then a linear layer, over the tokens of a map; both norms are one.

    Maps are (batch, inputs, *sizes) -> (batch, outputs, *sizes).
    """

    def __init__(
        self, inputs: int, outputs: int, axes: int, scan: str | Scan, index: int, mamba: bool, options: Mapping
    ):
        super().__init__()
        self.norm = nn.LayerNorm(inputs)
        self.mamba = new_mamba(inputs, scan, axes, index, **options) if mamba else None
        self.proj = nn.Linear(inputs, outputs)
        self.skip_scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        sizes, tokens = tuple(x.shape[2:]), to_tokens(x)
        y = self.skip_scale * tokens
        if self.mamba is not None:
            y = y + mixed(self.mamba, self.norm(tokens), sizes)
        return to_map(self.proj(self.norm(y)), sizes)


class EncoderBlock(nn.Module):
    """Twice group norm, ReLU and a Mamba layer; the input is added."""

    def __init__(self, width: int, make):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(GROUPS, width), nn.GroupNorm(GROUPS, width)
        self.conv1, self.conv2 = make(width, width), make(width, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.relu(self.norm1(x)))
        return self.conv2(F.relu(self.norm2(y))) + x


class Convolved(nn.Module):
    """A convolution under the name `conv`, as MONAI's layers have it."""

    def __init__(self, axes: int, inputs: int, outputs: int, kernel: int, groups: int = 1, bias: bool = False):
        super().__init__()
        self.conv = CONVOLUTIONS[axes](inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


def depthwise(axes: int, inputs: int, outputs: int, kernel: int, bias: bool = False) -> nn.Sequential:
    """A convolution of each channel by itself, then one over the channels."""
    return nn.Sequential(
        Convolved(axes, inputs, inputs, kernel, inputs, bias), Convolved(axes, inputs, outputs, 1, 1, bias)
    )


class DecoderBlock(nn.Module):
    """Group norm, ReLU, a depthwise convolution with the scaled input added, group norm, ReLU."""

    def __init__(self, axes: int, width: int):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(GROUPS, width), nn.GroupNorm(GROUPS, width)
        self.conv = depthwise(axes, width, width, 3)
        self.skip_scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(F.relu(self.norm1(x))) + self.skip_scale * x
        return F.relu(self.norm2(y))


class LightMUNet(nn.Module):
    """LightM-UNet: (batch, channels, *sizes) -> logits (batch, classes, *sizes).

    Args:
        channels, classes: of images and answers. patch_size: that it is made for.
        features: channels of the finest level, doubled at each level; a multiple of 8. depths: encoder blocks of each level.
        scan: of the Mamba layers; raster is the paper's. mamba: False: the same network without its Mambas.
        options: further ones of core.mixers.mamba.Mamba.
    """

    def __init__(
        self, channels: int, classes: int, patch_size: Sequence[int], features: int = 32, depths: Sequence[int] = DEPTHS,
        scan: str | Scan = "raster", mamba: bool = True, **options,
    ):  # fmt: skip
        super().__init__()
        if features % GROUPS:
            raise UserError("features do not fit", given=features, allowed=f"a multiple of {GROUPS}")
        axes, count = len(patch_size), 0
        widths = [features * 2**level for level in range(len(depths))]

        def layer(inputs: int, outputs: int) -> ResidualMamba:
            nonlocal count
            count += 1
            return ResidualMamba(inputs, outputs, axes, scan, count - 1, mamba, options)

        def downward(level: int) -> nn.Module:
            return nn.Sequential(layer(widths[level - 1], widths[level]), POOLS[axes](2)) if level else nn.Identity()

        self.convInit = depthwise(axes, channels, features, 3)
        self.down_layers = nn.ModuleList(
            nn.Sequential(downward(level), *(EncoderBlock(width, layer) for _ in range(depth)))
            for level, (width, depth) in enumerate(zip(widths, depths, strict=True))
        )
        upward = widths[-2::-1]
        self.up_samples = nn.ModuleList(nn.Sequential(Convolved(axes, 2 * width, width, 1)) for width in upward)
        self.up_layers = nn.ModuleList(nn.Sequential(DecoderBlock(axes, width)) for width in upward)
        self.conv_final = nn.Sequential(
            nn.GroupNorm(GROUPS, features), nn.ReLU(), depthwise(axes, features, classes, 1, bias=True)
        )
        self.multiple, self.mode = 2 ** (len(depths) - 1), {2: "bilinear", 3: "trilinear"}[axes]
        filled = [-(-size // self.multiple) * self.multiple for size in patch_size]
        strides = [(1,) * axes, *[(2,) * axes] * (len(depths) - 1)]
        self.grids = stages_of(filled, strides) if mamba else None

    def forward(self, x: Tensor) -> Tensor:
        sizes, skips = x.shape[2:], []
        x = self.convInit(filled_up(x, self.multiple))
        for each in self.down_layers:
            x = each(x)
            skips.append(x)
        for up, each, skip in zip(self.up_samples, self.up_layers, skips[-2::-1], strict=True):
            x = each(F.interpolate(up(x), size=skip.shape[2:], mode=self.mode, align_corners=False) + skip)
        return cropped(self.conv_final(x), sizes)


@checked(group="model")
def build(
    describe: Mapping,
    scan: str | Scan | None = None,
    features: Size | None = None,
    mamba: bool = True,
    d_state: Size = 16,
    backend: Literal["auto", "cpu", "gpu", "reference"] = "auto",
) -> LightMUNet:
    """A LightM-UNet for a data set.

    Args:
        describe: channels, num_classes, patch_size, model_size.
        scan: of the Mamba layers; None: raster, the paper's. mamba: False: the same network without its Mambas.
        features: channels of the finest level, a multiple of 8; None: 32, of micro data sets 8.
    """
    known, micro = described(describe), describe.get("model_size") == "micro"
    return LightMUNet(
        known.channels, known.classes, known.patch_size, features or (8 if micro else 32), DEPTHS[:3] if micro else DEPTHS,
        scan or "raster", mamba, d_state=d_state, backend=backend,
    )  # fmt: skip
