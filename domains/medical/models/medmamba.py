"""MedMamba (Yue and Li 2024, arXiv 2403.03849): an image classifier; half of the channels is scanned, the other half convolved.

Parameter names are those of the published code. Images of two axes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn import functional as F

from ....core.errors import UserError, check_choice
from ....core.mixers.ss2d import SS2D
from ....core.ranges import Rate, Size, checked
from ....core.scans import Scan
from ...padding import filled_up
from .stages import classified, stages_of
from .tokens import as_scan
from .vss import Mixing, PatchEmbed, PatchMerging, coloured, rising

COMPAT = ("corrected", "published")
PATCH = 4
SIZES = {
    "micro": {"dims": (16, 32, 64), "depths": (1, 1, 1)},
    "tiny": {"dims": (96, 192, 384, 768), "depths": (2, 2, 4, 2)},
    "small": {"dims": (96, 192, 384, 768), "depths": (2, 2, 8, 2)},
    "base": {"dims": (128, 256, 512, 1024), "depths": (2, 2, 12, 2)},
}


class Block(nn.Module):
    """SS-Conv-SSM: convolutions of the first half of the channels, SS2D of the second, shuffled into one another and added to x.

    Maps are (batch, height, width, channels). Without Mamba the second half is left as it is.
    """

    def __init__(self, width: int, mixing: Mixing, index: int, drop_path: float):
        super().__init__()
        half = width // 2
        self.drop_path = DropPath(drop_path)
        if mixing.mamba:
            self.ln_1 = nn.LayerNorm(half)
            self.self_attention = SS2D(half, scan=as_scan(mixing.scan).layer(index), **mixing.options)
        self.conv33conv33conv11 = nn.Sequential(
            nn.BatchNorm2d(half), nn.Conv2d(half, half, 3, padding=1),
            nn.BatchNorm2d(half), nn.ReLU(), nn.Conv2d(half, half, 3, padding=1),
            nn.BatchNorm2d(half), nn.ReLU(), nn.Conv2d(half, half, 1), nn.ReLU(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, -1)
        convolved = self.conv33conv33conv11(left.movedim(-1, 1)).movedim(1, -1)
        if not hasattr(self, "self_attention"):
            return x + torch.stack([convolved, torch.zeros_like(right)], -1).flatten(-2)
        sizes = tuple(x.shape[1:3])
        scanned = self.self_attention(self.ln_1(right).flatten(1, 2), sizes)[0].unflatten(1, sizes)
        return x + torch.stack([convolved, self.drop_path(scanned)], -1).flatten(-2)


class Stage(nn.Module):
    """Blocks, then a merging of patches where there is one; before it an odd map is filled up with zeros, or (`crops`) cut."""

    def __init__(self, width: int, mixing: Mixing, first: int, rates: Sequence[float], merges: bool, crops: bool):
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, mixing, first + number, rate) for number, rate in enumerate(rates))
        self.downsample = PatchMerging(width) if merges else None
        self.crops = crops

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        if self.downsample is None:
            return x
        height, width = x.shape[1:3]
        if self.crops:
            x = x[:, : height // 2 * 2, : width // 2 * 2]
        elif height % 2 or width % 2:
            x = F.pad(x, (0, 0, 0, width % 2, 0, height % 2))
        return self.downsample(x)


class MedMamba(nn.Module):
    """MedMamba: (batch, channels, height, width) -> logits (batch, classes).

    Args:
        channels, classes: of images and answers; images of one channel are taken three times, as the published weights need.
        image_size: height and width that pictures of its scans are drawn for.
        dims, depths: channels and blocks of each stage.
        scan: of the blocks; cross is the paper's. mamba: False: the same network without its scans.
        compat: of sizes that cannot be halved "published" cuts off the last row and column of a map (and pixels that fill no
            patch); "corrected" fills up with zeros.
        options: further ones of core.mixers.ss2d.SS2D.
    """

    def __init__(
        self, channels: int, classes: int, image_size: Sequence[int], dims: Sequence[int] = (96, 192, 384, 768),
        depths: Sequence[int] = (2, 2, 4, 2), drop_path_rate: float = 0.1, scan: str | Scan = "cross", mamba: bool = True,
        compat: str = "corrected", **options,
    ):  # fmt: skip
        super().__init__()
        check_choice("compat", compat, COMPAT)
        self.channels, self.crops, mixing = max(channels, 3), compat == "published", Mixing(scan, mamba, options)
        self.smallest = PATCH * 2 ** (len(dims) - 1) if self.crops else 1
        self.patch_embed = PatchEmbed(self.channels, dims[0], PATCH)
        rates, last = rising(drop_path_rate, depths), len(dims) - 1
        self.layers = nn.ModuleList(
            Stage(width, mixing, sum(depths[:number]), rates[number], number < last, self.crops)
            for number, width in enumerate(dims)
        )
        self.head = nn.Linear(dims[-1], classes)
        self.grids = stages_of(image_size, [(PATCH, PATCH), *[(2, 2)] * last]) if mamba else None

    def forward(self, x: Tensor) -> Tensor:
        if min(x.shape[2:]) < self.smallest:
            raise UserError(
                "the published MedMamba takes no images as small as these", given=tuple(x.shape[2:]),
                allowed=f"from {self.smallest} pixels", do="model.compat=corrected, or a larger data.image_size",
            )  # fmt: skip
        x = coloured(x, self.channels)
        x = self.patch_embed(x if self.crops else filled_up(x, PATCH))
        for layer in self.layers:
            x = layer(x)
        return self.head(x.mean((1, 2)))


@checked(group="model")
def build(
    describe: Mapping,
    scan: str | Scan | None = None,
    size: Literal["micro", "tiny", "small", "base"] | None = None,
    mamba: bool = True,
    drop_path_rate: Rate = 0.1,
    d_state: Size = 16,
    compat: Literal["corrected", "published"] = "corrected",
    backend: Literal["auto", "cpu", "gpu", "reference"] = "auto",
) -> MedMamba:
    """A MedMamba for a data set of labelled images.

    Args:
        describe: channels, num_classes, image_size, model_size.
        scan: of the blocks; None: cross, the paper's four paths. mamba: False: the same network without its scans.
        size: a row of SIZES; None: micro for small images, else tiny.
    """
    known = classified(describe, (2,))
    size = size or ("micro" if describe.get("model_size") == "micro" else "tiny")
    check_choice("model.size", size, SIZES, "model size")
    return MedMamba(
        known.channels, known.classes, known.image_size, **SIZES[size], drop_path_rate=drop_path_rate, scan=scan or "cross",
        mamba=mamba, compat=compat, d_state=d_state, backend=backend,
    )  # fmt: skip
