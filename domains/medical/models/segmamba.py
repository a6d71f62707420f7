"""SegMamba (Xing et al. 2024, arXiv 2401.13560): a volume's Mamba layers walk forwards, backwards and from slice to slice.

Parameter names are those of the published code; its convolutional blocks are MONAI's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import count, pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....core.errors import UserError, check_choice
from ....core.mixers.path_parameters import PathParameters
from ....core.ranges import Size, checked
from ....core.scans import Scan
from ...padding import cropped, filled_up
from .stages import described, stages_of
from .tokens import mamba as new_mamba
from .tokens import mixed, to_map, to_tokens

COMPAT = ("corrected", "published")
SLICES = (64, 32, 16, 8)  # of the published code, right for patches of 128 voxels alone
SIZES = {
    "micro": {"features": (8, 16, 32), "hidden": 64, "depths": (1, 1, 1)},
    "full": {"features": (48, 96, 192, 384), "hidden": 768, "depths": (2, 2, 2, 2)},
}
SUFFIXES = ("", "b", "s", *(f"path{number}" for number in range(3, 16)))


class MambaLayer(nn.Module):
    """x + Mamba(LayerNorm(x)) over the tokens of a map (batch, channels, depth, height, width).

    Args:
        slices: pretend that the tokens are so many slices; None: those of the map.
    """

    def __init__(self, width: int, scan: str | Scan, index: int, slices: int | None, options: Mapping):
        super().__init__()
        self.slices = slices
        self.norm = nn.LayerNorm(width)
        scan, axes = (scan, 3) if slices is None else ("bidirectional+column", 2)
        options = {"merge": "sum", "parameters": partial(PathParameters, suffixes=SUFFIXES), **options}
        self.mamba = new_mamba(width, scan, axes, index, **options)

    def forward(self, x: Tensor) -> Tensor:
        sizes, tokens = tuple(x.shape[2:]), to_tokens(x)
        grid = sizes
        if self.slices is not None:
            if tokens.shape[1] % self.slices:
                raise UserError(
                    f"the published SegMamba takes volumes of a multiple of {self.slices} tokens here", given=sizes,
                    do="model.compat=corrected, or patches of 128 voxels",
                )  # fmt: skip
            grid = (self.slices, tokens.shape[1] // self.slices)
        return x + to_map(mixed(self.mamba, self.norm(tokens), grid), sizes)


class GatedConvolution(nn.Module):
    """GSC: two branches of convolutions added up, one more, and the input.

    The paper's figure multiplies the branches; the published code and weights add them.
    """

    def __init__(self, width: int):
        super().__init__()
        self.proj, self.proj2 = nn.Conv3d(width, width, 3, padding=1), nn.Conv3d(width, width, 3, padding=1)
        self.proj3, self.proj4 = nn.Conv3d(width, width, 1), nn.Conv3d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        wide = _normed(self.proj2(_normed(self.proj(x)))) + _normed(self.proj3(x))
        return _normed(self.proj4(wide)) + x


class ChannelMLP(nn.Module):
    """Two convolutions of one voxel with GELU between."""

    def __init__(self, width: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Conv3d(width, 2 * width, 1), nn.Conv3d(2 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Encoder(nn.Module):
    """The maps of all stages, normed and through an MLP, the finest (half the volume's sizes) first."""

    def __init__(
        self, channels: int, features: Sequence[int], depths: Sequence[int], scan: str | Scan, mamba: bool,
        slices: Sequence[int | None], options: Mapping,
    ):  # fmt: skip
        super().__init__()
        self.downsample_layers = nn.ModuleList([nn.Sequential(nn.Conv3d(channels, features[0], 7, 2, 3))])
        for one, other in pairwise(features):
            self.downsample_layers.append(nn.Sequential(nn.InstanceNorm3d(one), nn.Conv3d(one, other, 2, 2)))
        number = count()
        self.stages = nn.ModuleList(
            nn.Sequential(
                *(MambaLayer(width, scan, next(number), of_stage, options) for _ in range(depth if mamba else 0))
            )
            for width, depth, of_stage in zip(features, depths, slices, strict=True)
        )
        self.gscs = nn.ModuleList(map(GatedConvolution, features))
        self.mlps = nn.ModuleList(map(ChannelMLP, features))

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for down, gsc, stage, mlp in zip(self.downsample_layers, self.gscs, self.stages, self.mlps, strict=True):
            x = stage(gsc(down(x)))
            maps.append(mlp(F.instance_norm(x)))
        return maps


class SegMamba(nn.Module):
    """SegMamba: volumes (batch, channels, depth, height, width) -> logits (batch, classes, depth, height, width).

    Args:
        channels, classes: of volumes and answers. patch_size: that it is made for.
        features, depths: channels and Mamba layers of each stage. hidden: channels of the coarsest map of the decoder.
        scan: of the Mamba layers; slices is the paper's. mamba: False: the same network without them.
        compat: "published" counts the slices as the code does, which is right for 128 voxels alone, and takes no other scan.
        options: further ones of core.mixers.mamba.Mamba.
    """

    def __init__(
        self, channels: int, classes: int, patch_size: Sequence[int], features: Sequence[int] = (48, 96, 192, 384),
        hidden: int = 768, depths: Sequence[int] = (2, 2, 2, 2), scan: str | Scan = "slices", mamba: bool = True,
        compat: str = "corrected", **options,
    ):  # fmt: skip
        super().__init__()
        with torch.device("cpu"):  # tensors that the import makes are real where the model's are not
            from monai.networks.blocks import UnetOutBlock, UnetrBasicBlock, UnetrUpBlock

        check_choice("compat", compat, COMPAT)
        slices = SLICES[: len(features)] if compat == "published" else (None,) * len(features)
        self.vit = Encoder(channels, features, depths, scan, mamba, slices, options)
        made = {"kernel_size": 3, "norm_name": "instance", "res_block": True}
        widths = [*features, hidden]
        for number, (one, other) in enumerate(zip([channels, *features], widths, strict=True), 1):
            self.add_module(f"encoder{number}", UnetrBasicBlock(3, one, other, stride=1, **made))
        for number, (one, other) in enumerate(zip(widths[1:], widths, strict=False), 2):
            self.add_module(f"decoder{number}", UnetrUpBlock(3, one, other, upsample_kernel_size=2, **made))
        self.decoder1 = UnetrBasicBlock(3, features[0], features[0], stride=1, **made)
        self.out = UnetOutBlock(3, features[0], classes)
        self.multiple, self.levels = 2 ** len(features), len(features) + 1
        filled = [-(-size // self.multiple) * self.multiple for size in patch_size]
        self.grids = stages_of(filled, [(2, 2, 2)] * len(features)) if mamba else None

    def forward(self, x: Tensor) -> Tensor:
        sizes, x = x.shape[2:], filled_up(x, self.multiple)
        maps = [getattr(self, f"encoder{n}")(each) for n, each in enumerate([x, *self.vit(x)], 1)]
        y = maps[-1]
        for number in range(self.levels, 1, -1):
            y = getattr(self, f"decoder{number}")(y, maps[number - 2])
        return cropped(self.out(self.decoder1(y)), sizes)


def _normed(x: Tensor) -> Tensor:
    return F.relu(F.instance_norm(x))


@checked(group="model")
def build(
    describe: Mapping,
    scan: str | Scan | None = None,
    size: Literal["micro", "full"] | None = None,
    mamba: bool = True,
    d_state: Size = 16,
    compat: Literal["corrected", "published"] = "corrected",
    backend: Literal["auto", "cpu", "gpu", "reference"] = "auto",
) -> SegMamba:
    """A SegMamba for a data set of volumes.

    Args:
        describe: channels, num_classes, patch_size, model_size.
        scan: of the Mamba layers; None: slices, the paper's three paths. mamba: False: the same network without them.
        size: a row of SIZES; None: what the data set asks for.
    """
    known, size = described(describe, (3,)), describe.get("model_size", "full") if size is None else size
    check_choice("model.size", size, SIZES, "model size")
    return SegMamba(
        known.channels, known.classes, known.patch_size, **SIZES[size], scan=scan or "slices", mamba=mamba, compat=compat,
        d_state=d_state, backend=backend,
    )  # fmt: skip
