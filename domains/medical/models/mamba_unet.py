"""Mamba-UNet (Wang et al. 2024, arXiv 2402.05079): Swin-UNet with VMamba's blocks; skips are joined and projected.

Parameter names are those of the published code. Images of two axes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ....core.errors import check_choice
from ....core.grid_blocks import PatchExpand
from ....core.ranges import Rate, Size, checked
from ....core.scans import Scan
from ...padding import cropped, filled_up
from .stages import described
from .vm_unet import PATCH, grids
from .vss import SIZES, Mixing, PatchEmbed, Stage, blocks, coloured, rising


class UpStage(nn.Module):
    """Blocks, then an expansion of patches where there is one."""

    def __init__(self, width: int, depth: int, mixing: Mixing, first: int, expands: bool):
        super().__init__()
        self.blocks = blocks(width, depth, mixing, first)
        self.upsample = PatchExpand(width, width // 2) if expands else None

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x if self.upsample is None else self.upsample(x)


class VSSM(nn.Module):
    """Encoder and decoder; see MambaUNet."""

    def __init__(self, channels, classes, dims, depths, drop_path_rate, mixing: Mixing):
        super().__init__()
        self.patch_embed = PatchEmbed(channels, dims[0], PATCH)
        rates, last = rising(drop_path_rate, depths), len(dims) - 1
        self.layers = nn.ModuleList(
            Stage(width, depth, mixing, sum(depths[:number]), number < last, rates[number])
            for number, (width, depth) in enumerate(zip(dims, depths, strict=True))
        )
        self.norm = nn.LayerNorm(dims[-1])
        upward = list(zip(dims[-2::-1], depths[-2::-1], strict=True))
        self.layers_up = nn.ModuleList([PatchExpand(dims[-1], dims[-1] // 2)])
        self.concat_back_dim = nn.ModuleList([nn.Identity()])
        for number, (width, depth) in enumerate(upward, 1):
            first = sum(depths) + sum(count for _, count in upward[: number - 1])
            self.layers_up.append(UpStage(width, depth, mixing, first, number < last))
            self.concat_back_dim.append(nn.Linear(2 * width, width))
        self.norm_up = nn.LayerNorm(dims[0])
        self.up = PatchExpand(dims[0], dims[0], PATCH)
        self.output = nn.Conv2d(dims[0], classes, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x, skips = self.patch_embed(x), []
        for layer in self.layers:
            skips.append(x)
            x = layer(x)
        x = self.layers_up[0](self.norm(x))
        for number in range(1, len(self.layers_up)):
            x = self.concat_back_dim[number](torch.cat([x, skips[-1 - number]], -1))
            x = self.layers_up[number](x)
        return self.output(self.up(self.norm_up(x)).movedim(-1, 1))


class MambaUNet(nn.Module):
    """Mamba-UNet: (batch, channels, height, width) -> logits (batch, classes, height, width).

    Args:
        channels, classes: of images and answers; images of one channel are taken three times, as the paper does.
        image_size: that pictures of its scans are drawn for.
        dims, depths: channels and blocks of each stage.
        scan: of the blocks; cross is the paper's. mamba: False: the same network without its blocks.
        options: further ones of core.mixers.ss2d.SS2D.
    """

    def __init__(
        self, channels: int, classes: int, image_size: Sequence[int], dims: Sequence[int] = (96, 192, 384, 768),
        depths: Sequence[int] = (2, 2, 2, 2), drop_path_rate: float = 0.2, scan: str | Scan = "cross", mamba: bool = True,
        **options,
    ):  # fmt: skip
        super().__init__()
        self.channels = max(channels, 3)
        mixing = Mixing(scan, mamba, options)
        self.mamba_unet = VSSM(self.channels, classes, dims, depths, drop_path_rate, mixing)
        self.multiple = PATCH * 2 ** (len(dims) - 1)
        self.grids = grids(image_size, self.multiple, PATCH, len(dims)) if mamba else None

    def forward(self, x: Tensor) -> Tensor:
        return cropped(self.mamba_unet(filled_up(coloured(x, self.channels), self.multiple)), x.shape[2:])


@checked(group="model")
def build(
    describe: Mapping,
    scan: str | Scan | None = None,
    size: Literal["micro", "small", "full"] | None = None,
    mamba: bool = True,
    drop_path_rate: Rate = 0.2,
    d_state: Size = 16,
    backend: Literal["auto", "cpu", "gpu", "reference"] = "auto",
) -> MambaUNet:
    """A Mamba-UNet for a data set of images.

    Args:
        describe: channels, num_classes, patch_size, model_size.
        scan: of the blocks; None: cross, the paper's four paths. mamba: False: the same network without its blocks.
        size: a row of vss.SIZES; None: what the data set asks for.
    """
    known, size = described(describe, (2,)), describe.get("model_size", "full") if size is None else size
    check_choice("model.size", size, SIZES, "model size")
    return MambaUNet(
        known.channels, known.classes, known.patch_size, **SIZES[size], drop_path_rate=drop_path_rate, scan=scan or "cross",
        mamba=mamba, d_state=d_state, backend=backend,
    )  # fmt: skip
