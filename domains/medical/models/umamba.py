"""U-Mamba (Ma, Li and Wang 2024, arXiv 2401.04722): nnU-Net's residual U-Net with Mamba layers in its encoder, 2-D and 3-D.

"bottleneck" (Bot) has one Mamba layer, on the coarsest map; "encoder" (Enc) has one after each stage (2-D: after every second).
Parameter names are those of U-Mamba's checkpoints, without the second names that these give to the same tensors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....core.errors import UserError, check_choice
from ....core.ranges import Depth, Size, checked
from ....core.scans import Scan
from .residual import convolution, stage
from .stages import described, stages_of
from .tokens import mamba, mixed, to_map, to_tokens

WHERE = ("bottleneck", "encoder")
COMPAT = ("corrected", "published")
SIZES = {
    "micro": {"base_features": 8, "max_features": 64, "max_stages": 4},
    "full": {"base_features": 32, "max_features": 320, "max_stages": 7},
}


class MambaLayer(nn.Module):
    """LayerNorm and Mamba over the tokens of a map (batch, channels, *sizes); the paper adds no residual.

    Args:
        width: channels of a token. axes: of the map.
        channel_tokens: the tokens are the channels and `width` is the number of voxels, which fixes the map's sizes.
    """

    def __init__(self, width: int, axes: int, scan: str | Scan, index: int, channel_tokens: bool, options: Mapping):
        super().__init__()
        self.channel_tokens = channel_tokens
        self.norm = nn.LayerNorm(width)
        self.mamba = mamba(width, "raster" if channel_tokens else scan, 1 if channel_tokens else axes, index, **options)

    def forward(self, x: Tensor) -> Tensor:
        sizes = tuple(x.shape[2:])
        if not self.channel_tokens:
            return to_map(mixed(self.mamba, self.norm(to_tokens(x)), sizes), sizes)
        if math.prod(sizes) != self.mamba.d_model:
            raise UserError(
                "a U-Mamba with channel tokens takes patches of one size alone", given=f"a map of {sizes} at this layer",
                allowed=f"{self.mamba.d_model} voxels", do="give it the patch size it was made for, or model.compat=corrected",
            )  # fmt: skip
        tokens = x.flatten(2)
        return mixed(self.mamba, self.norm(tokens), (tokens.shape[1],)).unflatten(2, sizes)


class Encoder(nn.Module):
    """Stem and stages; returns the maps of all stages, the finest first."""

    def __init__(
        self, channels: int, features: Sequence[int], kernels: Sequence, strides: Sequence, blocks: Sequence[int],
        mamba_layers: Sequence[nn.Module] | None,
    ):  # fmt: skip
        super().__init__()
        self.stem = stage(channels, features[0], kernels[0], 1, blocks[0])
        if mamba_layers is not None:
            self.mamba_layers = nn.ModuleList(mamba_layers)
        before = [features[0], *features[:-1]]
        self.stages = nn.ModuleList(map(stage, before, features, kernels, strides, blocks))

    def forward(self, x: Tensor) -> list[Tensor]:
        x, maps = self.stem(x), []
        for number, each in enumerate(self.stages):
            x = each(x)
            if hasattr(self, "mamba_layers"):
                x = self.mamba_layers[number](x)
            maps.append(x)
        return maps


class Upsample(nn.Module):
    """Nearest neighbour to the sizes of the finer map, then a convolution of one voxel."""

    def __init__(self, inputs: int, outputs: int, axes: int):
        super().__init__()
        self.conv = convolution(inputs, outputs, (1,) * axes)

    def forward(self, x: Tensor, sizes: Sequence[int]) -> Tensor:
        return self.conv(F.interpolate(x, size=tuple(sizes), mode="nearest"))


class Decoder(nn.Module):
    """From the coarsest map back to the finest; the logits of every scale, the finest first."""

    def __init__(
        self, features: Sequence[int], kernels: Sequence, blocks: Sequence[int], classes: int, finest_skip: bool
    ):
        super().__init__()
        axes, finer = len(kernels[0]), list(features[-2::-1])
        skips = [True] * (len(finer) - 1) + [finest_skip]
        self.stages = nn.ModuleList(
            stage(width * (2 if skip else 1), width, kernel, 1, count)
            for width, skip, kernel, count in zip(finer, skips, kernels[:0:-1], blocks, strict=True)
        )
        self.upsample_layers = nn.ModuleList(
            Upsample(coarse, fine, axes) for coarse, fine in zip(features[:0:-1], finer, strict=True)
        )
        self.seg_layers = nn.ModuleList(convolution(width, classes, (1,) * axes) for width in finer)
        self.skips = skips

    def forward(self, maps: Sequence[Tensor], all_scales: bool) -> list[Tensor]:
        x, answers, last = maps[-1], [], len(self.stages) - 1
        for number, (each, up, head) in enumerate(zip(self.stages, self.upsample_layers, self.seg_layers, strict=True)):
            skip = maps[-2 - number]
            x = up(x, skip.shape[2:])
            x = each(torch.cat([x, skip], 1) if self.skips[number] else x)
            if all_scales or number == last:
                answers.append(head(x))
        return answers[::-1]


class UMamba(nn.Module):
    """U-Mamba.

    Args:
        channels, classes: of the images and of the answer.
        patch_size: voxels along each axis that it is made for.
        features: channels of each stage, the finest first.
        kernels, strides: of each stage's convolutions, (stages, axes).
        where: "bottleneck" or "encoder": which maps are mixed.
        scan: of the Mamba layers; raster is the paper's.
        mamba: False: the same network without its Mamba layers.
        blocks: residual blocks of a stage; the coarser half of the stages has one.
        deep_supervision: in training answer at every scale.
        compat: "published" has what the paper's code does and its text does not: on coarse 3-D maps the tokens are channels, and
            in 2-D the finest map of the encoder does not reach the decoder. "corrected" has tokens of voxels and all skips.
        options: further ones of core.mixers.mamba.Mamba.
    """

    def __init__(
        self, channels: int, classes: int, patch_size: Sequence[int], features: Sequence[int], kernels: Sequence, strides: Sequence,
        where: str = "bottleneck", scan: str | Scan = "raster", mamba: bool = True, blocks: int = 2,
        deep_supervision: bool = True, compat: str = "corrected", **options,
    ):  # fmt: skip
        super().__init__()
        check_choice("where", where, WHERE)
        check_choice("compat", compat, COMPAT)
        self.axes, self.deep_supervision, published = len(patch_size), deep_supervision, compat == "published"
        maps = stages_of(patch_size, strides)
        count = len(features)
        finest_blocks = [blocks if number < math.ceil(count / 2) else 1 for number in range(count)]
        upward = [blocks if number < math.ceil((count - 1) / 2 + 0.5) else 1 for number in range(count - 1)]
        layers, self.grids = None, []
        if where == "encoder" and mamba:
            # The paper's 2-D network mixes every second map, so that the coarsest is one of them.
            mixes = [self.axes == 3 or (number % 2) != (count % 2) for number in range(count)]
            as_channels = [published and math.prod(map_) <= width for map_, width in zip(maps, features, strict=True)]
            layers = [
                MambaLayer(
                    math.prod(maps[number]) if as_channels[number] else features[number], self.axes, scan, number,
                    as_channels[number], options,
                ) if mixes[number] else nn.Identity()
                for number in range(count)
            ]  # fmt: skip
            self.grids = [maps[number] for number in range(count) if mixes[number] and not as_channels[number]]
        self.encoder = Encoder(channels, features, kernels, strides, finest_blocks, layers)
        if where == "bottleneck" and mamba:
            self.mamba_layer = MambaLayer(features[-1], self.axes, scan, 0, False, options)
            self.grids = [maps[-1]]
        self.grids = self.grids or None  # None: nothing is scanned
        self.decoder = Decoder(features, kernels, upward, classes, not (published and self.axes == 2))

    def scales(self, x: Tensor) -> list[Tensor]:
        """Logits at every scale, (batch, classes, *sizes), the finest first."""
        return self._answers(x, True)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """(batch, channels, *sizes) -> (batch, classes, *sizes); in training with deep supervision as `scales`."""
        all_scales = self.training and self.deep_supervision
        answers = self._answers(x, all_scales)
        return answers if all_scales else answers[0]

    def _answers(self, x: Tensor, all_scales: bool) -> list[Tensor]:
        maps = self.encoder(x)
        if hasattr(self, "mamba_layer"):
            maps[-1] = self.mamba_layer(maps[-1])
        return self.decoder(maps, all_scales)


@checked(group="model")
def build(
    describe: Mapping,
    scan: str | Scan | None = None,
    where: Literal["bottleneck", "encoder"] = "bottleneck",
    size: Literal["micro", "full"] | None = None,
    mamba: bool = True,
    base_features: Size | None = None,
    max_features: Size | None = None,
    max_stages: Depth | None = None,
    blocks: Depth = 2,
    d_state: Size = 16,
    deep_supervision: bool = True,
    compat: Literal["corrected", "published"] = "corrected",
    backend: Literal["auto", "cpu", "gpu", "reference"] = "auto",
) -> UMamba:
    """A U-Mamba for a data set.

    Args:
        describe: channels, num_classes, patch_size, kernels and strides of the stages, model_size.
        scan: of the Mamba layers; None: raster, the paper's.
        size: a row of SIZES; None: what the data set asks for.
        base_features, max_features: channels of the finest stage, doubled at each stage up to the largest.
        max_stages: stages at most; the patch size may allow fewer.
        others: UMamba's.
    """
    known = described(describe)
    size = describe.get("model_size", "full") if size is None else size
    check_choice("model.size", size, SIZES, "model size")
    given = {"base_features": base_features, "max_features": max_features, "max_stages": max_stages}
    chosen = {**SIZES[size], **{key: value for key, value in given.items() if value is not None}}
    count = min(len(known.strides), chosen["max_stages"])
    features = [min(chosen["base_features"] * 2**number, chosen["max_features"]) for number in range(count)]
    return UMamba(
        known.channels, known.classes, known.patch_size, features, known.kernels[:count], known.strides[:count], where,
        scan or "raster", mamba, blocks, deep_supervision, compat, d_state=d_state, backend=backend,
    )  # fmt: skip
