"""EfficientVMamba (arXiv 2403.09977): its first stages scan every second token along each of four paths, the others convolve."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from timm.models._efficientnet_blocks import SqueezeExcite
from torch import Tensor, nn

from ....core.grid_blocks import ChannelGate, PatchMerging, count_flops, mix_grid
from ....core.linear import normalised
from ....core.mixers.ss2d import SS2D
from ....core.ranges import Count, Depth, Rate, Side, Size, checked
from ....core.scans import Scan
from ....core.scans import get as get_scan
from .backbone import Hierarchical, both_sides, make_stages, size_for, suitable_stride, with_names
from .position import strip_wrapping
from .registration import Variant, register
from .stems import patch_stem

SIZES = {
    "micro": {"dims": (32, 64), "depths": (1, 1)},
    "tiny": {"dims": 48, "depths": (2, 2, 4, 2)},
    "small": {"dims": 64, "depths": (2, 2, 4, 2)},
    "base": {"dims": 96, "depths": (2, 2, 9, 2)},
}


class EfficientBlock(nn.Module):
    """Adds what a mixer and a convolution say of the normalised tokens, each weighed channel by channel by the same gate (EVSS)."""

    def __init__(self, channels: int, mixer: nn.Module, drop_path: nn.Module, **factory):
        super().__init__()
        self.norm, self.op, self.drop_path = nn.LayerNorm(channels, **factory), mixer, drop_path
        depthwise = nn.Conv2d(channels, channels, 3, 1, 1, groups=channels, **factory)
        pointwise = nn.Conv2d(channels, channels, 1, **factory)
        self.conv_branch = nn.Sequential(depthwise, nn.BatchNorm2d(channels, **factory), nn.GELU(), pointwise)
        self.se = ChannelGate(channels, **factory)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, height, width, channels) to the same."""
        y = normalised(self.norm, x).to(x.dtype)
        convolved = self.conv_branch(y.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        said = (self.se(each.flatten(1, 2)) for each in (mix_grid(self.op, y), convolved))
        return x + self.drop_path(sum(said).unflatten(1, x.shape[1:3]))

    def flops(self, sizes: Sequence[int]) -> int:
        """Floating point operations over one grid."""
        return self.op.flops(tuple(sizes)) + count_flops(self.conv_branch, sizes)[0] + 2 * self.se.flops(sizes)


class InvertedResidual(nn.Module):
    """Widens by a factor of 4, convolves, weighs the channels, narrows and adds (MobileNetV3's block with ReLU)."""

    def __init__(self, channels: int, drop_path: nn.Module, **factory):
        super().__init__()
        wide = 4 * channels

        def normed(convolution: nn.Conv2d, act: bool) -> nn.Sequential:
            layers = [convolution, nn.BatchNorm2d(convolution.out_channels, **factory)]
            return nn.Sequential(*layers, *([nn.ReLU()] if act else []))

        self.conv_pw = normed(nn.Conv2d(channels, wide, 1, bias=False, **factory), True)
        self.conv_dw = normed(nn.Conv2d(wide, wide, 3, 1, 1, groups=wide, bias=False, **factory), True)
        self.se = SqueezeExcite(wide, 0.125, act_layer=nn.ReLU, **factory)
        self.conv_pw2 = normed(nn.Conv2d(wide, channels, 1, bias=False, **factory), False)
        self.drop_path = drop_path

    def forward(self, x: Tensor) -> Tensor:
        """(batch, height, width, channels) to the same."""
        y = self.conv_pw2(self.se(self.conv_dw(self.conv_pw(x.permute(0, 3, 1, 2)))))
        return x + self.drop_path(y.permute(0, 2, 3, 1))

    def flops(self, sizes: Sequence[int]) -> int:
        """Floating point operations over one grid; the channels are weighed by what one token says."""
        convolutions = (self.conv_pw, self.conv_dw, self.conv_pw2)
        return sum(count_flops(each, sizes)[0] for each in convolutions) + count_flops(self.se, (1, 1))[0]


class EfficientVMamba(Hierarchical):
    """EfficientVMamba: the first half of its stages scan.

    Args:
        img_size, in_chans, num_classes, global_pool, stride, dims, depths: as of VMamba.
        d_state, expand, backend: the mixers' (core.mixers.ss2d.SS2D).
        scan: a scan mode or Scan; block i walks scan.layer(i). scan_parameters: the mode's parameters.
        compat: "published": grids of odd sides are filled up with zeros before they are scanned; None: paths end at the border.
        drop_rate: dropout before the head. drop_path_rate: stochastic depth, rising linearly over the blocks.
    """

    norm_name, head_name = "classifier.norm", "classifier.head"

    @checked
    def __init__(
        self,
        img_size: Side | tuple[Side, Side] = 224,
        in_chans: Size = 3,
        num_classes: Count = 1000,
        global_pool: str = "avg",
        stride: Literal[4, 2, 1] | None = None,
        dims: Size | tuple[Size, ...] = 48,
        depths: tuple[Depth, ...] = (2, 2, 4, 2),
        d_state: Size = 16,
        expand: Size = 2,
        scan: str | Scan = "skip",
        scan_parameters: dict | None = None,
        compat: Literal["published"] | None = None,
        drop_rate: Rate = 0.0,
        drop_path_rate: Rate = 0.0,
        backend: str = "auto",
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        factory, img_size = {"device": device, "dtype": dtype}, both_sides(img_size)
        stride = suitable_stride(img_size) if stride is None else stride
        widths = [dims * 2**stage for stage in range(len(depths))] if isinstance(dims, int) else list(dims)
        self.scan = get_scan(scan, **(scan_parameters or {})) if isinstance(scan, str) else scan
        mixing = {"d_state": d_state, "expand": expand, "padded": compat == "published", "backend": backend, **factory}
        self.patch_embed = patch_stem(in_chans, widths[0], stride, **factory)

        def block(stage: int, number: int, drop_path: nn.Module) -> nn.Module:
            if stage < (len(depths) + 1) // 2:
                mixer = SS2D(widths[stage], scan=self.scan.layer(number), **mixing)
                return EfficientBlock(widths[stage], mixer, drop_path, **factory)
            return InvertedResidual(widths[stage], drop_path, **factory)

        self.layers = make_stages(depths, widths, block, PatchMerging, drop_path_rate, factory)
        self.classifier = nn.ModuleDict({"norm": nn.LayerNorm(widths[-1], **factory), "head": nn.Identity()})
        self.head_drop = nn.Dropout(drop_rate)
        self._finish(img_size, widths, stride, num_classes, global_pool)


def checkpoint_filter_fn(state_dict: Mapping, model: EfficientVMamba) -> dict[str, Tensor]:
    """A saved state dict as the model can load it: unwrapped, without prefixes, the convolutions' stages named as the others."""
    state = with_names(strip_wrapping(state_dict), ((r"^(module\.)+", ""),))
    state = with_names(state, ((r"^layers\.(\d+)\.\d+\.(norm|reduction)\.", r"layers.\1.downsample.\2."),))
    # The first of them stands behind a change of layout, so they count from 1.
    pattern = re.compile(r"^layers\.(\d+)\.(\d+)\.")
    return {
        pattern.sub(lambda found: f"layers.{found[1]}.blocks.{int(found[2]) - 1}.", name): value
        for name, value in state.items()
    }  # fmt: skip


@checked(group="model")
def build(
    describe: dict,
    scan: str | Scan = "skip",
    size: Literal["micro", "tiny", "small", "base"] | None = None,
    stride: Literal[4, 2, 1] | None = None,
    drop_path_rate: Rate = 0.0,
    compat: Literal["published"] | None = None,
    backend: Literal["auto", "cpu", "gpu", "reference"] = "auto",
) -> EfficientVMamba:
    """An EfficientVMamba for a data set; arguments as of VMamba's `build` and of EfficientVMamba."""
    return EfficientVMamba(
        tuple(describe["image_size"]), describe["channels"], describe["num_classes"], stride=stride, scan=scan,
        drop_path_rate=drop_path_rate, compat=compat, backend=backend, **size_for(describe, size, SIZES),
    )  # fmt: skip


register(
    EfficientVMamba,
    {
        "efficientvmamba_micro": Variant("A small EfficientVMamba.", SIZES["micro"], more={"input_size": (3, 32, 32)}),
        "efficientvmamba_tiny": Variant("EfficientVMamba-T: 6.5 million parameters, ImageNet-1k 76.5%.", SIZES["tiny"]),
        "efficientvmamba_small": Variant("EfficientVMamba-S: 11.3 million parameters, ImageNet-1k 78.7%.", SIZES["small"]),
        "efficientvmamba_base": Variant("EfficientVMamba-B: 33.7 million parameters, ImageNet-1k 81.8%.", SIZES["base"]),
    },
    checkpoint_filter_fn, (0, 1, 2, 3), first_conv="patch_embed.0", classifier="classifier.head",
    origin_url="https://github.com/TerryPei/EfficientVMamba", paper_ids="arXiv:2403.09977",
)  # fmt: skip
