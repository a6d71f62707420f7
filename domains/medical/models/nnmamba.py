"""nnMamba (Gong et al. 2024, arXiv 2402.03526): a residual U-Net for volumes with one Mamba layer in each of its stages, and its
classifier of whole volumes, which has one Mamba layer after its first convolutions.

Parameter names are those of the published code, without the second name that this gives to each Mamba layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....core.errors import UserError, check_choice
from ....core.ranges import Depth, Rate, Size, checked
from ....core.scans import Scan
from ...padding import cropped, filled_up
from .stages import classified, described, stages_of
from .tokens import mamba as new_mamba
from .tokens import mixed, to_map, to_tokens

COMPAT = ("corrected", "published")
HALVINGS = 4
REDUCTION = 16


class DoubleConv(nn.Module):
    """Twice convolution, batch norm and ReLU; `bare`: the second time the convolution alone."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, bare: bool = False):
        super().__init__()
        layers = [nn.Conv3d(inputs, outputs, 3, stride, 1), nn.BatchNorm3d(outputs), nn.ReLU()]
        layers.append(nn.Conv3d(outputs, outputs, 3, padding=1))
        self.conv = nn.Sequential(*layers, *(() if bare else (nn.BatchNorm3d(outputs), nn.ReLU())))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class MambaLayer(nn.Module):
    """A convolution of one voxel, batch norm, ReLU and Mamba over the tokens of a map (batch, channels, *sizes).

    Args:
        walks: 4: also over the channels reversed, the tokens reversed and both, by the same Mamba; their mean (the paper's CSS).
        wraps: what the Mamba was given is added, then a second convolution of one voxel, batch norm and ReLU.
    """

    def __init__(self, width: int, scan: str | Scan, index: int, walks: int, wraps: bool, options: Mapping):
        super().__init__()
        self.walks = walks
        self.nin = nn.Conv3d(width, width, 1, bias=False)
        self.norm = nn.BatchNorm3d(width)
        self.mamba = new_mamba(width, scan, 3, index, **options)
        if wraps:
            self.nin2, self.norm2 = nn.Conv3d(width, width, 1, bias=False), nn.BatchNorm3d(width)

    def forward(self, x: Tensor) -> Tensor:
        sizes, given = tuple(x.shape[2:]), F.relu(self.norm(self.nin(x)))
        y = to_map(self._walked(to_tokens(given), sizes), sizes)
        return F.relu(self.norm2(self.nin2(y + given))) if hasattr(self, "nin2") else y

    def _walked(self, tokens: Tensor, sizes: tuple[int, ...]) -> Tensor:
        if self.walks == 1:
            return mixed(self.mamba, tokens, sizes)
        ways = [(), (2,), (1,), (1, 2)]
        found = mixed(self.mamba, torch.cat([tokens.flip(way) for way in ways]), sizes).chunk(len(ways))
        return sum(each.flip(way) for way, each in zip(ways, found, strict=True)) / len(ways)


class Block(nn.Module):
    """A residual block of two convolutions; what the stage's Mamba layer says of its input is added where there is one."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv3d(inputs, outputs, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv3d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm3d(outputs), nn.BatchNorm3d(outputs)
        changes = stride > 1 or inputs != outputs
        shortcut = (nn.Conv3d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm3d(outputs))
        self.downsample = nn.Sequential(*shortcut) if changes else None

    def forward(self, x: Tensor, more: Tensor | float = 0.0) -> Tensor:
        inner = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + more
        return F.relu(inner + (x if self.downsample is None else self.downsample(x)))


class Stage(nn.ModuleList):
    """Blocks, the first strided; all others share a Mamba layer, kept under the last of them."""

    def __init__(self, inputs: int, outputs: int, count: int, mamba_layer: nn.Module | None):
        super().__init__(
            Block(inputs if not number else outputs, outputs, 1 if number else 2) for number in range(count)
        )
        if mamba_layer is not None and count > 1:
            self[-1].mamba_layer = mamba_layer

    def forward(self, x: Tensor) -> Tensor:
        x, shared = self[0](x), getattr(self[-1], "mamba_layer", None)
        for block in list(self)[1:]:
            x = block(x) if shared is None else block(x, shared(x))
        return x


class ChannelWeights(nn.Module):
    """A weight for each channel of a map, from the channels' means."""

    def __init__(self, width: int):
        super().__init__()
        inner = max(1, width // REDUCTION)
        self.layer1, self.layer2 = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.layer2(F.relu(self.layer1(x.mean((2, 3, 4))))).sigmoid()
        return x * weights[:, :, None, None, None]


class NnMamba(nn.Module):
    """nnMamba for segmentation: (batch, channels, *sizes) -> logits (batch, classes, *sizes).

    Args:
        channels, classes: of volumes and answers. patch_size: that it is made for.
        features: channels of the finest stage. blocks: of each stage.
        scan: of the Mamba layers. mamba: False: the same network without them.
        walks: over the tokens of a Mamba layer: 4, the paper's (with the layer's input added and a second convolution), or 1, what
            the published trainers import; None: 1 where compat is "published".
        deep_supervision: in training answer at 1, 1/2, 1/4 and 1/8. The published network of four walks has one answer.
        compat: "published" has batch norm and ReLU after the logits, which are never negative; "corrected": logits of either sign.
        options: further ones of core.mixers.mamba.Mamba.
    """

    def __init__(
        self, channels: int, classes: int, patch_size: Sequence[int], features: int = 32, blocks: int = 3,
        scan: str | Scan = "raster", mamba: bool = True, walks: int | None = None, deep_supervision: bool = True,
        compat: str = "corrected", **options,
    ):  # fmt: skip
        super().__init__()
        check_choice("compat", compat, COMPAT)
        published = compat == "published"
        walks = walks or (1 if published else 4)
        if walks not in (1, 4):
            raise UserError("walks do not fit", given=walks, allowed="1 or 4")
        self.deep_supervision = deep_supervision and not (published and walks == 4)
        widths = [features * 2**number for number in range(4)]
        self.in_conv = DoubleConv(channels, features, 2)
        for number, width in enumerate(widths[:-1], 1):
            layer = MambaLayer(2 * width, scan, number - 1, walks, walks == 4, options) if mamba else None
            self.add_module(f"att{number}", ChannelWeights(width))
            self.add_module(f"layer{number}", Stage(width, 2 * width, blocks, layer))
            self.add_module(f"conv{8 - number}", DoubleConv(3 * width, width))
            if self.deep_supervision:
                self.add_module(f"ds{number}_cls_conv", nn.Conv3d(width, classes, 1))
        self.conv8 = DoubleConv(features, classes, bare=not published)
        filled = [-(-size // 2**HALVINGS) * 2**HALVINGS for size in patch_size]
        self.grids = stages_of(filled, [(2, 2, 2)] * HALVINGS)[1:] if mamba else None

    def scales(self, x: Tensor) -> list[Tensor]:
        """Logits at every scale, the finest first."""
        sizes, x = x.shape[2:], filled_up(x, 2**HALVINGS)
        maps = [self.in_conv(x)]
        for number in (1, 2, 3):
            maps.append(getattr(self, f"layer{number}")(maps[-1]))
        y, answers = maps[-1], []
        for number in (3, 2, 1):
            skip = getattr(self, f"att{number}")(maps[number - 1])
            y = getattr(self, f"conv{8 - number}")(torch.cat([_doubled(y), skip], 1))
            if self.deep_supervision:
                answers.append(getattr(self, f"ds{number}_cls_conv")(y))
        answers.append(self.conv8(_doubled(y)))
        return [
            cropped(each, [-(-size // 2**number) for size in sizes]) for number, each in enumerate(reversed(answers))
        ]

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        found = self.scales(x)
        return found if self.training and self.deep_supervision else found[0]


class NnMambaClassifier(nn.Module):
    """nnMamba for classification: (batch, channels, *sizes) of any sizes -> logits (batch, classes).

    The means of the maps of three residual stages go through two linear layers.

    Args:
        channels, classes: of volumes and answers. image_size: that pictures of its scan are drawn for.
        features: channels after the first convolutions. blocks: of each stage. dropout: before the last layer.
        scan: of the Mamba layer. mamba: False: the same network without it.
        options: further ones of core.mixers.mamba.Mamba.
    """

    def __init__(
        self, channels: int, classes: int, image_size: Sequence[int], features: int = 32, blocks: int = 3,
        scan: str | Scan = "raster", mamba: bool = True, dropout: float = 0.5, **options,
    ):  # fmt: skip
        super().__init__()
        self.in_conv = DoubleConv(channels, features, 2)
        options = {"d_state": 8, **options}
        self.mamba_layer_stem = MambaLayer(features, scan, 0, 1, True, options) if mamba else None
        widths = [features * 2**number for number in range(4)]
        for number, width in enumerate(widths[:-1], 1):
            self.add_module(f"layer{number}", Stage(width, 2 * width, blocks, None))
        self.mlp = nn.Sequential(
            nn.Linear(sum(widths[1:]), features), nn.ReLU(), nn.Dropout(dropout), nn.Linear(features, classes)
        )
        self.grids = stages_of(image_size, [(2, 2, 2)]) if mamba else None

    def forward(self, x: Tensor) -> Tensor:
        x, means = self.in_conv(x), []
        if self.mamba_layer_stem is not None:
            x = self.mamba_layer_stem(x) + x
        for number in (1, 2, 3):
            x = getattr(self, f"layer{number}")(x)
            means.append(x.mean((2, 3, 4)))
        return self.mlp(torch.cat(means, 1))


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="trilinear", align_corners=False)


@checked(group="model")
def build(
    describe: Mapping,
    scan: str | Scan | None = None,
    features: Size | None = None,
    blocks: Depth = 3,
    mamba: bool = True,
    walks: Literal[1, 4] | None = None,
    d_state: Size = 16,
    deep_supervision: bool = True,
    compat: Literal["corrected", "published"] = "corrected",
    backend: Literal["auto", "cpu", "gpu", "reference"] = "auto",
) -> NnMamba:
    """An nnMamba for a data set of volumes.

    Args:
        describe: channels, num_classes, patch_size, model_size.
        scan: of the Mamba layers; None: raster. mamba: False: the same network without them.
        features: channels of the finest stage; None: 32, of micro data sets 8.
        others: NnMamba's.
    """
    known = described(describe, (3,))
    return NnMamba(
        known.channels, known.classes, known.patch_size, features or _features(describe), blocks, scan or "raster", mamba, walks,
        deep_supervision, compat, d_state=d_state, backend=backend,
    )  # fmt: skip


@checked(group="model")
def build_classifier(
    describe: Mapping,
    scan: str | Scan | None = None,
    features: Size | None = None,
    blocks: Depth = 3,
    mamba: bool = True,
    d_state: Size = 8,
    dropout: Rate = 0.5,
    backend: Literal["auto", "cpu", "gpu", "reference"] = "auto",
) -> NnMambaClassifier:
    """nnMamba's classifier for a data set of labelled volumes.

    Args:
        describe: channels, num_classes, image_size, model_size.
        scan: of the Mamba layer; None: raster. mamba: False: the same network without it.
        features: channels after the first convolutions; None: 32, of micro data sets 8.
    """
    known = classified(describe, (3,))
    return NnMambaClassifier(
        known.channels, known.classes, known.image_size, features or _features(describe), blocks, scan or "raster", mamba, dropout,
        d_state=d_state, backend=backend,
    )  # fmt: skip


def _features(describe: Mapping) -> int:
    return 8 if describe.get("model_size") == "micro" else 32
