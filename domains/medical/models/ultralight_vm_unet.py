"""UltraLight VM-UNet (Wu et al. 2024, arXiv 2403.20035): 49,457 parameters; Mambas mix a quarter of the channels each.

Parameter names are those of the published code, which has images of two axes alone; volumes take the same steps in three.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....core.errors import UserError, check_choice
from ....core.ranges import Size, checked
from ....core.scans import Scan
from ...padding import cropped, filled_up
from .stages import described, stages_of
from .tokens import mamba as new_mamba
from .tokens import mixed, to_map, to_tokens

WIDTHS = (8, 16, 24, 32, 48, 64)
CHUNKS = 4
HALVINGS = 5


class ParallelMamba(nn.Module):
    """Chunks of the channels, each through the same Mamba and added to itself; norms before and after, one and the same.

    Maps are (batch, inputs, *sizes) -> (batch, outputs, *sizes).
    """

    def __init__(
        self, inputs: int, outputs: int, scan: str | Scan, axes: int, index: int, mamba: bool, options: Mapping
    ):
        super().__init__()
        self.norm = nn.LayerNorm(inputs)
        self.mamba = new_mamba(inputs // CHUNKS, scan, axes, index, **options) if mamba else None
        self.proj = nn.Linear(inputs, outputs)
        self.skip_scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        sizes = tuple(x.shape[2:])
        tokens = self.norm(to_tokens(x))
        y = self.skip_scale * tokens
        if self.mamba is not None:
            # The chunks are samples to the mixer: one call for all of them.
            parts = tokens.unflatten(2, (CHUNKS, -1)).transpose(1, 2)
            found = mixed(self.mamba, parts.flatten(0, 1), sizes).unflatten(0, (-1, CHUNKS))
            y = y + found.transpose(1, 2).flatten(2)
        return to_map(self.proj(self.norm(y)), sizes)


class ChannelBridge(nn.Module):
    """A weight for each channel of each skip, from the means of all of them; split: "fc" or "conv", the form of its layers."""

    def __init__(self, widths: Sequence[int], split: str):
        super().__init__()
        self.get_all_att = nn.Conv1d(1, 1, 3, padding=1, bias=False)
        for number, width in enumerate(widths, 1):
            inputs = sum(widths)
            layer = nn.Linear(inputs, width) if split == "fc" else nn.Conv1d(inputs, width, 1)
            self.add_module(f"att{number}", layer)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        means = torch.cat([each.flatten(2).mean(2) for each in maps], 1)[:, None]
        together = self.get_all_att(means)[:, 0]
        layers = [getattr(self, f"att{number}") for number in range(1, len(maps) + 1)]
        found = [
            layer(together) if isinstance(layer, nn.Linear) else layer(together[..., None])[..., 0] for layer in layers
        ]
        return [each.sigmoid().unflatten(1, (-1, *(1,) * (maps[0].dim() - 2))) for each in found]


class SpatialBridge(nn.Module):
    """A weight for each pixel of each skip, from the mean and the largest of its channels."""

    def __init__(self, axes: int):
        super().__init__()
        self.shared_conv2d = nn.Sequential(_convolution(axes)(2, 1, 7, padding=9, dilation=3), nn.Sigmoid())

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        return [self.shared_conv2d(torch.cat([each.mean(1, True), each.amax(1, True)], 1)) for each in maps]


class Bridge(nn.Module):
    """The skips, weighted by pixel and by channel."""

    def __init__(self, widths: Sequence[int], split: str, axes: int):
        super().__init__()
        self.catt, self.satt = ChannelBridge(widths, split), SpatialBridge(axes)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        marked = [weight * each for weight, each in zip(self.satt(maps), maps, strict=True)]
        both = [one + other for one, other in zip(marked, maps, strict=True)]
        return [weight * each + own for weight, each, own in zip(self.catt(both), both, marked, strict=True)]


class UltraLightVMUNet(nn.Module):
    """UltraLight VM-UNet: (batch, channels, *sizes) -> logits (batch, classes, *sizes), of two axes or three.

    Args:
        channels, classes: of images and answers. image_size: that pictures of its scans are drawn for.
        scan: of the Mambas; raster is the paper's. mamba: False: the same network without them.
        widths: channels of each of the six stages. bridge: weigh the skips by pixel and by channel. split_att: "fc" or "conv", the
            form in which the layers that weigh channels are stored.
        options: further ones of core.mixers.mamba.Mamba.
    """

    def __init__(
        self, channels: int, classes: int, image_size: Sequence[int], scan: str | Scan = "raster", mamba: bool = True,
        widths: Sequence[int] = WIDTHS, bridge: bool = True, split_att: str = "fc", **options,
    ):  # fmt: skip
        super().__init__()
        if len(widths) != len(WIDTHS) or any(width % 8 for width in widths):
            raise UserError("widths do not fit", given=list(widths), allowed=f"{len(WIDTHS)} multiples of 8")
        check_choice("split_att", split_att, ("fc", "conv"))
        axes = len(image_size)
        convolution, inputs = _convolution(axes), [channels, *widths[:-1]]
        for number, (one, other) in enumerate(zip(inputs, widths, strict=True), 1):
            mixing = ParallelMamba(one, other, scan, axes, number - 4, mamba, options) if number > 3 else None
            self.add_module(f"encoder{number}", nn.Sequential(mixing or convolution(one, other, 3, padding=1)))
        for number, (one, other) in enumerate(zip(widths[:0:-1], widths[-2::-1], strict=True), 1):
            mixing = ParallelMamba(one, other, scan, axes, number + 2, mamba, options) if number <= 3 else None
            self.add_module(f"decoder{number}", nn.Sequential(mixing or convolution(one, other, 3, padding=1)))
        for number, width in enumerate(widths[:-1], 1):
            self.add_module(f"ebn{number}", nn.GroupNorm(4, width))
            self.add_module(f"dbn{number}", nn.GroupNorm(4, widths[-1 - number]))
        self.scab = Bridge(widths[:-1], split_att, axes) if bridge else None
        self.final = convolution(widths[0], classes, 1)
        filled = [-(-size // 2**HALVINGS) * 2**HALVINGS for size in image_size]
        self.grids = stages_of(filled, [(2,) * axes] * HALVINGS)[2:] if mamba else None

    def forward(self, x: Tensor) -> Tensor:
        sizes, x = x.shape[2:], filled_up(x, 2**HALVINGS)
        whole, skips, halve = x.shape[2:], [], (F.max_pool2d, F.max_pool3d)[x.dim() - 4]
        for number in range(1, 6):
            normed = getattr(self, f"ebn{number}")(getattr(self, f"encoder{number}")(x))
            x = F.gelu(halve(normed, 2))
            skips.append(x)
        skips = skips if self.scab is None else self.scab(skips)
        x = F.gelu(self.encoder6(x))
        for number in range(1, 6):
            skip = skips[-number]
            normed = getattr(self, f"dbn{number}")(getattr(self, f"decoder{number}")(x))
            x = F.gelu(_resized(normed, skip.shape[2:])) + skip
        return cropped(_resized(self.final(x), whole), sizes)


def _resized(x: Tensor, sizes: Sequence[int]) -> Tensor:
    if x.shape[2:] == sizes:
        return x
    return F.interpolate(x, size=tuple(sizes), mode=("bilinear", "trilinear")[x.dim() - 4], align_corners=True)


def _convolution(axes: int) -> type[nn.Module]:
    return (nn.Conv2d, nn.Conv3d)[axes - 2]


@checked(group="model")
def build(
    describe: Mapping,
    scan: str | Scan | None = None,
    mamba: bool = True,
    bridge: bool = True,
    d_state: Size = 16,
    backend: Literal["auto", "cpu", "gpu", "reference"] = "auto",
) -> UltraLightVMUNet:
    """An UltraLight VM-UNet for a data set of images or volumes.

    Args:
        describe: channels, num_classes, patch_size.
        scan: of the Mambas; None: raster, the paper's. mamba: False: the same network without them.
        bridge: weigh the skips by pixel and by channel.
    """
    known = described(describe, (2, 3))
    return UltraLightVMUNet(
        known.channels,
        known.classes,
        known.patch_size,
        scan or "raster",
        mamba,
        bridge=bridge,
        d_state=d_state,
        backend=backend,
    )
