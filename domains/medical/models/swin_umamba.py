"""Swin-UMamba (Liu et al. 2024, arXiv 2402.03302): VMamba's encoder under a convolutional decoder, or (D) one of VMamba's blocks.

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
from .vm_unet import grids
from .vss import Mixing, PatchEmbed, PatchMerging, Stage, rising

DECODERS = ("convolutional", "mamba")
SIZES = {
    "micro": {"dims": (8, 16, 32, 64), "depths": (1, 1, 1, 1)},
    "small": {"dims": (32, 64, 128, 256), "depths": (2, 2, 2, 2)},
    "full": {"dims": (96, 192, 384, 768), "depths": (2, 2, 9, 2)},
}


class Encoder(nn.Module):
    """VMamba: the map of each stage, (batch, height, width, channels), the finest first."""

    def __init__(self, channels, patch, dims, depths, drop_path_rate, mixing: Mixing):
        super().__init__()
        self.patch_embed = PatchEmbed(channels, dims[0], patch)
        rates = rising(drop_path_rate, depths)
        self.layers = nn.ModuleList(
            Stage(width, depth, mixing, sum(depths[:number]), False, rates[number])
            for number, (width, depth) in enumerate(zip(dims, depths, strict=True))
        )
        self.downsamples = nn.ModuleList(map(PatchMerging, dims[:-1]))

    def forward(self, x: Tensor) -> list[Tensor]:
        x, maps = self.patch_embed(x), []
        for number, layer in enumerate(self.layers):
            x = layer(self.downsamples[number - 1](x) if number else x)
            maps.append(x)
        return maps


class Scaled(nn.Module):
    """What answers at every scale in training and at the finest one otherwise; a subclass says `scales`."""

    deep_supervision: bool
    multiple: int

    def scales(self, x: Tensor) -> list[Tensor]:
        """Logits at every scale, (batch, classes, height, width), the finest first."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """(batch, channels, height, width) -> (batch, classes, height, width); in training as `scales`."""
        sizes = x.shape[2:]
        found = self.scales(filled_up(x, self.multiple))
        if not (self.training and self.deep_supervision):
            return cropped(found[0], sizes)
        whole = found[0].shape[2]
        return [cropped(each, [-(-size * each.shape[2] // whole) for size in sizes]) for each in found]


class SwinUMamba(Scaled):
    """Swin-UMamba: a strided convolution, VMamba's encoder on patches of 2, MONAI's residual decoder.

    Args:
        channels, classes: of images and answers. image_size: that pictures of its scans are drawn for.
        dims, depths: channels and blocks of each stage of the encoder.
        scan: of the blocks; cross is the paper's. mamba: False: the same network without its blocks.
        deep_supervision: in training answer at 1, 1/2, 1/4 and 1/8.
        options: further ones of core.mixers.ss2d.SS2D.
    """

    def __init__(
        self, channels: int, classes: int, image_size: Sequence[int], dims: Sequence[int] = (96, 192, 384, 768),
        depths: Sequence[int] = (2, 2, 9, 2), drop_path_rate: float = 0.2, scan: str | Scan = "cross", mamba: bool = True,
        deep_supervision: bool = True, **options,
    ):  # fmt: skip
        super().__init__()
        with torch.device("cpu"):  # tensors that the import makes are real where the model's are not
            from monai.networks.blocks import UnetOutBlock, UnetrBasicBlock, UnetrUpBlock

        self.deep_supervision, self.multiple = deep_supervision, 4 * 2 ** (len(dims) - 1)
        stem = dims[0] // 2
        self.stem = nn.Sequential(nn.Conv2d(channels, stem, 7, 2, 3), nn.InstanceNorm2d(stem, affine=True))
        self.vssm_encoder = Encoder(stem, 2, dims, depths, drop_path_rate, Mixing(scan, mamba, options))
        made = {"kernel_size": 3, "norm_name": "instance", "res_block": True}
        widths = [stem, *dims]
        inputs = [channels, stem, *dims[:-1]]
        for number, (one, other) in enumerate(zip(inputs, widths, strict=True), 1):
            self.add_module(f"encoder{number}", UnetrBasicBlock(2, one, other, stride=1, **made))
        for number, (one, other) in enumerate(zip([*dims, dims[-1]], widths, strict=True), 2):
            self.add_module(f"decoder{number}", UnetrUpBlock(2, one, other, upsample_kernel_size=2, **made))
        self.decoder1 = UnetrBasicBlock(2, stem, stem, stride=1, **made)
        self.out_layers = nn.ModuleList(UnetOutBlock(2, width, classes) for width in widths[:-1])
        self.grids = grids(image_size, self.multiple, 4, len(dims)) if mamba else None

    def scales(self, x: Tensor) -> list[Tensor]:
        begun = self.stem(x)
        maps = [x, begun, *(each.movedim(-1, 1) for each in self.vssm_encoder(begun))]
        count = len(maps) - 1
        y, answers = maps[-1], []
        for number in range(count, 0, -1):
            skip = getattr(self, f"encoder{number}")(maps[number - 1])
            y = getattr(self, f"decoder{number + 1}")(y, skip)
            answers.append(y)
        answers = [self.decoder1(answers[-1]), *answers[-2:0:-1]]
        return [head(each) for head, each in zip(self.out_layers, answers, strict=True)]


class BlockDecoder(nn.Module):
    """Expands the coarsest map, joined with the encoder's at every scale; logits of each scale, the finest first."""

    def __init__(self, classes, dims, mixing: Mixing, first: int, depth: int, rate: float):
        super().__init__()
        upward = dims[-2::-1]
        self.stages = nn.ModuleList(
            Stage(width, depth, mixing, first + depth * number, False, [rate] * depth)
            for number, width in enumerate(upward)
        )
        self.expand_layers = nn.ModuleList(PatchExpand(2 * width, width) for width in upward)
        self.expand_layers.append(PatchExpand(dims[0], dims[0], 4))
        self.concat_back_dim = nn.ModuleList(nn.Linear(2 * width, width) for width in upward)
        self.seg_layers = nn.ModuleList(nn.Conv2d(width, classes, 1) for width in (*upward, dims[0]))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        x, answers = maps[-1], []
        for number, (expand, head) in enumerate(zip(self.expand_layers, self.seg_layers, strict=True)):
            x = expand(x)
            if number < len(self.stages):
                x = self.concat_back_dim[number](torch.cat([x, maps[-2 - number]], -1))
                x = self.stages[number](x)
            answers.append(head(x.movedim(-1, 1)))
        return answers[::-1]


class SwinUMambaD(Scaled):
    """Swin-UMamba D: VMamba's encoder on patches of 4 and a decoder of its blocks; answers at 1, 1/4, 1/8 and 1/16 in training.

    Arguments are SwinUMamba's.
    """

    def __init__(
        self, channels: int, classes: int, image_size: Sequence[int], dims: Sequence[int] = (96, 192, 384, 768),
        depths: Sequence[int] = (2, 2, 9, 2), drop_path_rate: float = 0.2, scan: str | Scan = "cross", mamba: bool = True,
        deep_supervision: bool = True, **options,
    ):  # fmt: skip
        super().__init__()
        self.deep_supervision, self.multiple = deep_supervision, 4 * 2 ** (len(dims) - 1)
        mixing = Mixing(scan, mamba, options)
        self.vssm_encoder = Encoder(channels, 4, dims, depths, drop_path_rate, mixing)
        self.decoder = BlockDecoder(classes, dims, mixing, sum(depths), min(2, depths[0]), 0.0)
        self.grids = grids(image_size, self.multiple, 4, len(dims)) if mamba else None

    def scales(self, x: Tensor) -> list[Tensor]:
        return self.decoder(self.vssm_encoder(x))


@checked(group="model")
def build(
    describe: Mapping,
    scan: str | Scan | None = None,
    size: Literal["micro", "small", "full"] | None = None,
    decoder: Literal["convolutional", "mamba"] = "convolutional",
    mamba: bool = True,
    deep_supervision: bool = True,
    drop_path_rate: Rate = 0.2,
    d_state: Size = 16,
    backend: Literal["auto", "cpu", "gpu", "reference"] = "auto",
) -> SwinUMamba | SwinUMambaD:
    """A Swin-UMamba for a data set of images.

    Args:
        describe: channels, num_classes, patch_size, model_size.
        scan: of the blocks; None: cross, the paper's four paths. mamba: False: the same network without its blocks.
        size: a row of SIZES; None: what the data set asks for.
        decoder: "convolutional", or "mamba" for Swin-UMamba D.
    """
    known, size = described(describe, (2,)), describe.get("model_size", "full") if size is None else size
    check_choice("model.size", size, SIZES, "model size")
    check_choice("model.decoder", decoder, DECODERS)
    kind = SwinUMamba if decoder == "convolutional" else SwinUMambaD
    return kind(
        known.channels, known.classes, known.patch_size, **SIZES[size], drop_path_rate=drop_path_rate, scan=scan or "cross",
        mamba=mamba, deep_supervision=deep_supervision, d_state=d_state, backend=backend,
    )  # fmt: skip
