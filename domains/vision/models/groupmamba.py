"""GroupMamba (arXiv 2407.13772): the channels in four groups, each walked along one path of its own, then weighed and mixed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

import torch
from timm.layers import trunc_normal_
from torch import Tensor, nn
from torch.nn import functional as F

from ....core.grid_blocks import count_flops, mix_grid
from ....core.linear import normalised
from ....core.mixers.grouped import GroupedSS2D
from ....core.ranges import Count, Depth, Rate, Side, Size, checked
from ....core.scans import Grid, Scan
from ....core.scans import get as get_scan
from .backbone import Hierarchical, both_sides, make_stages, size_for, suitable_stride, with_names
from .position import strip_wrapping
from .registration import Variant, register
from .stems import ChannelsLast

PUBLISHED = {"mlp_ratios": (8, 8, 4, 4), "distilled": True}
SIZES = {
    "micro": {"stem_dim": 16, "dims": (32, 64), "depths": (1, 1), "mlp_ratios": (4, 2)},
    "tiny": {"stem_dim": 32, "dims": (64, 128, 348, 448), "depths": (3, 4, 9, 3), **PUBLISHED},
    "small": {"stem_dim": 64, "dims": (64, 128, 348, 512), "depths": (3, 4, 16, 3), **PUBLISHED},
    "base": {"stem_dim": 64, "dims": (96, 192, 424, 512), "depths": (3, 6, 21, 3), **PUBLISHED},
}


class ModulatedGroups(GroupedSS2D):
    """The modulated group Mamba layer (section 3.2): normalised, scanned in groups, times the tokens, times a gate of channels that
    their mean says, normalised by the same norm and projected."""

    def __init__(
        self, d_model: int, scan: str | Scan = "cross", reduction: int = 16, device=None, dtype=None, **options
    ):
        options = {"d_state": 1, "expand": 1, **options}
        super().__init__(d_model, scan, name="mamba_g", device=device, dtype=dtype, **options)
        factory, narrow = {"device": device, "dtype": dtype}, max(d_model // reduction, 1)
        self.fc1, self.fc2 = nn.Linear(d_model, narrow, **factory), nn.Linear(narrow, d_model, **factory)
        self.norm, self.proj = nn.LayerNorm(d_model, **factory), nn.Linear(d_model, d_model, **factory)
        self.skip_scale = nn.Parameter(torch.ones(1, **factory))

    def forward(self, x: Tensor, grid=None, state=None, seq_idx=None) -> tuple[Tensor, None]:
        x = normalised(self.norm, x).to(x.dtype)
        y, _ = super().forward(x, grid, state, seq_idx)
        gate = self.fc2(F.relu(self.fc1(x.mean(1, keepdim=True)))).sigmoid()
        y = y * self.skip_scale.to(y.dtype) * x * gate
        return self.proj(normalised(self.norm, y).to(y.dtype)), None

    def flops(self, grid: Grid | tuple[int, ...]) -> int:
        length, _ = self._visits(grid)
        return super().flops(grid) + 2 * (length * self.proj.weight.numel() + 2 * self.fc1.weight.numel())


class DepthwiseMLP(nn.Module):
    """An MLP whose wide layer is convolved, depthwise: (batch, height, width, channels) to the same."""

    def __init__(self, channels: int, hidden: int, convolved: bool = True, **factory):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(channels, hidden, **factory), nn.Linear(hidden, channels, **factory)
        self.dwconv = nn.Identity()
        if convolved:
            self.dwconv = nn.ModuleDict({"dwconv": nn.Conv2d(hidden, hidden, 3, 1, 1, groups=hidden, **factory)})

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x)
        if isinstance(self.dwconv, nn.ModuleDict):
            x = self.dwconv["dwconv"](x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.fc2(F.gelu(x))


class GroupBlock(nn.Module):
    """Adds what the layer says of the tokens, then what the MLP says of the normalised tokens."""

    def __init__(self, channels: int, mixer: nn.Module, mlp_ratio: int, drop_path: nn.Module, **factory):
        super().__init__()
        self.attn, self.norm2 = mixer, nn.LayerNorm(channels, eps=1e-6, **factory)
        self.mlp, self.drop_path = DepthwiseMLP(channels, mlp_ratio * channels, **factory), drop_path

    def forward(self, x: Tensor) -> Tensor:
        """(batch, height, width, channels) to the same."""
        x = x + self.drop_path(mix_grid(self.attn, x))
        return x + self.drop_path(self.mlp(normalised(self.norm2, x).to(x.dtype)))


class SummaryBlock(nn.Module):
    """A token that begins as the mean of all: adds what its own layer and MLP say of it (class attention's place)."""

    def __init__(self, channels: int, mixer: nn.Module, mlp_ratio: int, **factory):
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(channels, eps=1e-6, **factory) for _ in range(2))
        self.attn, self.mlp = mixer, DepthwiseMLP(channels, mlp_ratio * channels, convolved=False, **factory)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 1, 1, channels) to the same."""
        x = x + normalised(self.norm1, mix_grid(self.attn, x)).to(x.dtype)
        return x + self.mlp(normalised(self.norm2, x).to(x.dtype))


class Downsample(nn.Module):
    """Normalises, halves a map by a convolution, normalises again: (batch, height, width, channels) to half of it, rounded up."""

    def __init__(self, channels: int, outputs: int, **factory):
        super().__init__()
        self.before = nn.LayerNorm(channels, eps=1e-6, **factory)
        self.proj = nn.Conv2d(channels, outputs, 3, 2, 1, **factory)
        self.norm = nn.LayerNorm(outputs, **factory)

    def forward(self, x: Tensor) -> Tensor:
        x = self.proj(normalised(self.before, x).to(x.dtype).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return normalised(self.norm, x).to(x.dtype)


def _stem(in_chans: int, between: int, channels: int, stride: int, factory: dict) -> nn.Sequential:
    first, second = {4: (2, 2), 2: (2, 1), 1: (1, 1)}[stride]
    layers, inputs = [], in_chans
    for kernel, step in ((7, first), (3, 1), (3, 1)):
        layers.append(nn.Conv2d(inputs, between, kernel, step, kernel // 2, bias=False, **factory))
        layers += [nn.BatchNorm2d(between, **factory), nn.ReLU()]
        inputs = between
    stem = nn.Sequential()
    stem.add_module("conv", nn.Sequential(*layers))
    stem.add_module("proj", nn.Conv2d(between, channels, 3, second, 1, **factory))
    stem.add_module("last", ChannelsLast())
    stem.add_module("norm", nn.LayerNorm(channels, **factory))
    return stem


class GroupMamba(Hierarchical):
    """GroupMamba.

    Args:
        img_size, in_chans, num_classes, global_pool, stride, dims, depths: as of VMamba.
        stem_dim: channels between the stem's convolutions. mlp_ratios: inner channels of each stage's MLPs per channel.
        d_state, backend: the mixers' (core.mixers.ss2d.SS2D).
        scan: a scan mode or Scan, each path for one group of channels; block i walks scan.layer(i). scan_parameters: the mode's.
        distilled: a second head that a teacher trains; the answer is the mean of both. Of a model in training that
            `set_distilled_training` was called for, both.
        drop_rate: dropout before the head. drop_path_rate: stochastic depth, rising linearly over the blocks.
    """

    distilled_training = False

    @checked
    def __init__(
        self,
        img_size: Side | tuple[Side, Side] = 224,
        in_chans: Size = 3,
        num_classes: Count = 1000,
        global_pool: str = "avg",
        stride: Literal[4, 2, 1] | None = None,
        stem_dim: Size = 32,
        dims: tuple[Size, ...] = (64, 128, 348, 448),
        depths: tuple[Depth, ...] = (3, 4, 9, 3),
        mlp_ratios: tuple[Size, ...] = (8, 8, 4, 4),
        d_state: Size = 1,
        scan: str | Scan = "cross",
        scan_parameters: dict | None = None,
        distilled: bool = False,
        drop_rate: Rate = 0.0,
        drop_path_rate: Rate = 0.0,
        backend: str = "auto",
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        factory, img_size = {"device": device, "dtype": dtype}, both_sides(img_size)
        stride = suitable_stride(img_size) if stride is None else stride
        self.scan = get_scan(scan, **(scan_parameters or {})) if isinstance(scan, str) else scan
        self.patch_embed, self.distilled = _stem(in_chans, stem_dim, dims[0], stride, factory), distilled
        mixing, sizes = {"d_state": d_state, "backend": backend, **factory}, list(zip(dims, mlp_ratios, strict=True))

        def block(stage: int, number: int, drop_path: nn.Module) -> nn.Module:
            width, mlp_ratio = sizes[stage]
            mixer = ModulatedGroups(width, self.scan.layer(number), **mixing)
            return GroupBlock(width, mixer, mlp_ratio, drop_path, **factory)

        self.layers = make_stages(depths, dims, block, Downsample, drop_path_rate, factory)
        summary = ModulatedGroups(dims[-1], self.scan.layer(0), **mixing)
        self.post_network = nn.ModuleList([SummaryBlock(dims[-1], summary, mlp_ratios[-1], **factory)])
        self.norm = nn.LayerNorm(dims[-1], eps=1e-6, **factory)
        self.head_drop = nn.Dropout(drop_rate)
        self._finish(img_size, list(dims), stride, num_classes, global_pool)

    def final_norm(self, x: Tensor) -> Tensor:
        """The last stage's map as it is: what is normalised is the token that sums it up."""
        return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """The token that sums the map up, normalised, and, unless `pre_logits`, its class scores."""
        if self.global_pool == "avg":
            x = x.mean((1, 2), keepdim=True)
            for block in self.post_network:
                x = block(x)
            x = normalised(self.norm, x).to(x.dtype).flatten(1)
        x = self.head_drop(x)
        if pre_logits or not self.distilled:
            return x if pre_logits else self.head(x)
        both = self.head(x), self.dist_head(x)
        return both if self.distilled_training and self.training else (both[0] + both[1]) / 2

    def set_distilled_training(self, enable: bool = True) -> None:
        """Answer in training with both heads' scores, the second for what a teacher says."""
        self.distilled_training = enable

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """As of the others; both heads are new."""
        super().reset_classifier(num_classes, global_pool)
        if not self.distilled:
            return
        self.dist_head = nn.Identity()
        if num_classes:
            like = self.head.weight
            self.dist_head = nn.Linear(self.num_features, num_classes, device=like.device, dtype=like.dtype)
            trunc_normal_(self.dist_head.weight, std=0.02)
            nn.init.zeros_(self.dist_head.bias)

    def flops(self, batch: int = 1) -> int:
        heads = 2 * self.num_features * self.num_classes if self.distilled else 0
        return super().flops(batch) + batch * (count_flops(self.post_network, (1, 1))[0] + heads)

    def group_matcher(self, coarse: bool = False) -> dict:
        found = super().group_matcher(coarse)
        if not coarse:
            found["blocks"] = [*found["blocks"], (r"^post_network|^dist_head|^head", (99999,))]
        return found


def checkpoint_filter_fn(state_dict: Mapping, model: GroupMamba) -> dict[str, Tensor]:
    """A saved state dict as the model can load it: unwrapped, under its names, without a second head that the model lacks."""
    state = renamed(strip_wrapping(state_dict))
    return {name: value for name, value in state.items() if model.distilled or not name.startswith("dist_head.")}


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A saved state under the names of the model: what lies between two stages belongs to the first."""
    stages = max((int(found[1]) for name in state if (found := re.match(r"block(\d+)\.", name))), default=0)

    def before(found: re.Match) -> str:
        return "norm." if int(found[1]) == stages else f"layers.{int(found[1]) - 1}.downsample.before."

    numbered = (
        (re.compile(r"^patch_embed(\d+)\."), lambda found: _embedded(int(found[1]))),
        (re.compile(r"^block(\d+)\.(\d+)\."), lambda found: f"layers.{int(found[1]) - 1}.blocks.{found[2]}."),
        (re.compile(r"^norm(\d+)\."), before),
    )
    state = with_names(state, ((r"^module\.", ""),))
    for pattern, replaced in numbered:
        state = {pattern.sub(replaced, name): value for name, value in state.items()}
    return state


def _embedded(number: int) -> str:
    return "patch_embed." if number == 1 else f"layers.{number - 2}.downsample."


@checked(group="model")
def build(
    describe: dict,
    scan: str | Scan = "cross",
    size: Literal["micro", "tiny", "small", "base"] | None = None,
    stride: Literal[4, 2, 1] | None = None,
    drop_path_rate: Rate = 0.0,
    distilled: bool | None = None,
    backend: Literal["auto", "cpu", "gpu", "reference"] = "auto",
) -> GroupMamba:
    """A GroupMamba for a data set; arguments as of VMamba's `build` and of GroupMamba (distilled None: as of the size)."""
    chosen = size_for(describe, size, SIZES) | ({} if distilled is None else {"distilled": distilled})
    return GroupMamba(
        tuple(describe["image_size"]), describe["channels"], describe["num_classes"], stride=stride, scan=scan,
        drop_path_rate=drop_path_rate, backend=backend, **chosen,
    )  # fmt: skip


register(
    GroupMamba,
    {
        "groupmamba_micro": Variant("A small GroupMamba.", SIZES["micro"], more={"input_size": (3, 32, 32)}),
        "groupmamba_tiny": Variant("GroupMamba-T: 23 million parameters, ImageNet-1k 83.3%.", SIZES["tiny"]),
        "groupmamba_small": Variant("GroupMamba-S: 34 million parameters, ImageNet-1k 83.9%.", SIZES["small"]),
        "groupmamba_base": Variant("GroupMamba-B: 57 million parameters, ImageNet-1k 84.5%.", SIZES["base"]),
    },
    checkpoint_filter_fn, (0, 1, 2, 3), first_conv="patch_embed.conv.0", classifier="head",
    origin_url="https://github.com/Amshaker/GroupMamba", paper_ids="arXiv:2407.13772",
)  # fmt: skip
