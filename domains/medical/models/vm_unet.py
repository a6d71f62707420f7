"""VM-UNet (Ruan and Xiang 2024, arXiv 2402.02491): a U-Net of VMamba's blocks whose skips are added.

Parameter names are those of the published code. Images of two axes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from torch import Tensor, nn

from ....core.errors import check_choice
from ....core.grid_blocks import PatchExpand
from ....core.ranges import Rate, Size, checked
from ....core.scans import Scan
from ...padding import cropped, filled_up
from .stages import described, stages_of
from .vss import SIZES, Mixing, PatchEmbed, Stage, blocks, coloured, rising

PATCH = 4


class UpStage(nn.Module):
    """An expansion of patches where there is one, then blocks."""

    def __init__(self, width: int, depth: int, mixing: Mixing, first: int, expands: bool):
        super().__init__()
        self.blocks = blocks(width, depth, mixing, first)
        self.upsample = PatchExpand(2 * width, width) if expands else None

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.upsample is None else self.upsample(x)
        for block in self.blocks:
            x = block(x)
        return x


class VSSM(nn.Module):
    """Encoder and decoder; see VMUNet."""

    def __init__(self, channels, classes, dims, depths, depths_decoder, drop_path_rate, mixing: Mixing):
        super().__init__()
        self.patch_embed = PatchEmbed(channels, dims[0], PATCH)
        rates, last = rising(drop_path_rate, depths), len(dims) - 1
        self.layers = nn.ModuleList(
            Stage(width, depth, mixing, sum(depths[:number]), number < last, rates[number])
            for number, (width, depth) in enumerate(zip(dims, depths, strict=True))
        )
        self.layers_up = nn.ModuleList(
            UpStage(width, depth, mixing, sum(depths) + sum(depths_decoder[:number]), number > 0)
            for number, (width, depth) in enumerate(zip(dims[::-1], depths_decoder, strict=True))
        )
        self.final_up = PatchExpand(dims[0], dims[0] // PATCH, PATCH)
        self.final_conv = nn.Conv2d(dims[0] // PATCH, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        x, skips = self.patch_embed(x), []
        for layer in self.layers:
            skips.append(x)
            x = layer(x)
        for number, layer in enumerate(self.layers_up):
            x = layer(x + skips[-number] if number else x)
        return self.final_conv(self.final_up(x).movedim(-1, 1))


class VMUNet(nn.Module):
    """VM-UNet: (batch, channels, height, width) -> logits (batch, classes, height, width).

    Args:
        channels, classes: of images and answers; images of one channel are taken three times, as the paper does.
        image_size: that pictures of its scans are drawn for.
        dims, depths: channels and blocks of each stage. depths_decoder: blocks of the decoder's, the coarsest first.
        scan: of the blocks; cross is the paper's. mamba: False: the same network without its blocks.
        options: further ones of core.mixers.ss2d.SS2D.
    """

    def __init__(
        self, channels: int, classes: int, image_size: Sequence[int], dims: Sequence[int] = (96, 192, 384, 768),
        depths: Sequence[int] = (2, 2, 2, 2), depths_decoder: Sequence[int] = (2, 2, 2, 1), drop_path_rate: float = 0.2,
        scan: str | Scan = "cross", mamba: bool = True, **options,
    ):  # fmt: skip
        super().__init__()
        self.channels = max(channels, 3)
        self.vmunet = VSSM(
            self.channels, classes, dims, depths, depths_decoder, drop_path_rate, Mixing(scan, mamba, options)
        )
        self.multiple = PATCH * 2 ** (len(dims) - 1)
        self.grids = grids(image_size, self.multiple, PATCH, len(dims)) if mamba else None

    def forward(self, x: Tensor) -> Tensor:
        return cropped(self.vmunet(filled_up(coloured(x, self.channels), self.multiple)), x.shape[2:])


def grids(image_size: Sequence[int], multiple: int, patch: int, count: int) -> list[tuple[int, ...]]:
    """The grid of each stage: images filled up to a multiple, divided into patches, then halved."""
    filled = [-(-size // multiple) * multiple for size in image_size]
    return stages_of(filled, [(patch, patch), *[(2, 2)] * (count - 1)])


@checked(group="model")
def build(
    describe: Mapping,
    scan: str | Scan | None = None,
    size: Literal["micro", "small", "full"] | None = None,
    mamba: bool = True,
    drop_path_rate: Rate = 0.2,
    d_state: Size = 16,
    backend: Literal["auto", "cpu", "gpu", "reference"] = "auto",
) -> VMUNet:
    """A VM-UNet for a data set of images.

    Args:
        describe: channels, num_classes, patch_size, model_size.
        scan: of the blocks; None: cross, the paper's four paths. mamba: False: the same network without its blocks.
        size: a row of vss.SIZES; None: what the data set asks for.
    """
    known, size = described(describe, (2,)), describe.get("model_size", "full") if size is None else size
    check_choice("model.size", size, SIZES, "model size")
    depths = SIZES[size]["depths"]
    return VMUNet(
        known.channels, known.classes, known.patch_size, **SIZES[size], depths_decoder=(*depths[1:], 1),
        drop_path_rate=drop_path_rate, scan=scan or "cross", mamba=mamba, d_state=d_state, backend=backend,
    )  # fmt: skip
