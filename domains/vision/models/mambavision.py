"""MambaVision (arXiv 2407.08083): convolutions at high resolution, then mixers and, last in each stage, attention, both in windows.

Parameter names are those of its checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from timm.layers import Attention, Mlp
from torch import Tensor, nn
from torch.nn import functional as F

from ....core.grid_blocks import count_flops, mix_grid
from ....core.linear import applied, normalised
from ....core.mixers.convolutions import GridConvolution
from ....core.mixers.mamba import Mamba, Selection
from ....core.mixers.mixer import Call
from ....core.ranges import Count, Depth, Rate, Side, Size, Weight, checked
from ....core.scans import Grid, Scan
from ....core.scans import get as get_scan
from .backbone import Hierarchical, Stage, both_sides, drop_paths, grids_of, size_for, suitable_stride, with_names
from .position import strip_wrapping
from .registration import Variant, register
from .stems import ChannelsLast


def _size(dim: int, in_dim: int, depths: tuple[int, ...], heads: tuple[int, ...] = (2, 4, 8, 16), **more) -> dict:
    return {"dim": dim, "in_dim": in_dim, "depths": depths, "num_heads": heads, **more}


WINDOWS = (8, 8, 14, 7)
SCALED = {"layer_scale": 1e-5}
SIZES = {
    "micro": _size(32, 16, (1, 2), (2, 4), window_size=(8, 8)),
    "tiny": _size(80, 32, (1, 3, 8, 4)),
    "tiny2": _size(80, 32, (1, 3, 11, 4)),
    "small": _size(96, 64, (3, 3, 7, 5)),
    "base": _size(128, 64, (3, 3, 10, 5), **SCALED),
    "large": _size(196, 64, (3, 3, 10, 5), (4, 8, 16, 32), **SCALED),
    "large2": _size(196, 64, (3, 3, 12, 5), (4, 8, 16, 32), **SCALED),
    # Published for ImageNet-21k alone, at 256 and 512 pixels.
    "large3": _size(256, 64, (3, 3, 20, 10), (4, 8, 16, 32), window_size=(8, 8, 16, 8), **SCALED),
}
# What its authors test on of an image's smaller side (their mamba_vision.py; models without one are tested on all of it).
CROPS = {"tiny2": 0.98, "small": 0.93}


class RasterConvolution(GridConvolution):
    """Over the tokens in raster order, whatever grid they lie on, and not causal."""

    def __call__(self, mixer: Mamba, x: Tensor, call: Call, order: Tensor | None) -> tuple[Tensor, None]:
        return super().__call__(mixer, x, call._replace(sizes=(x.shape[1],), extra=()), order)


class HalfMixed(Mamba):
    """MambaVision's mixer: both halves convolved, not causally, one of them scanned, then both side by side (section 3.2).

    Args:
        d_model: channels of the tokens, even.
        compat: "published": the bias of the step size counts twice, as the published weights were trained; None: once.
        scan: paths over a window's grid of two axes.
        options: as of Mamba.
    """

    scan_gates = False

    def __init__(
        self, d_model: int, d_state: int = 8, d_conv: int = 3, scan: str | Scan = "raster", compat: str | None = None,
        device=None, dtype=None, **options,
    ):  # fmt: skip
        def convolution(width, axes, ends):
            return RasterConvolution(width, 1, ends, layer="conv1d_x")

        factory = {"device": device, "dtype": dtype}
        options = {"conv": convolution, "conv_bias": False, "scan": scan, "axes": 2, **options, **factory}
        super().__init__(d_model, d_state, d_conv, expand=0.5, **options)
        self.compat = compat
        half = self.d_inner
        self.conv1d_z = nn.Conv1d(half, half, d_conv, padding="same", groups=half, bias=False, **factory)
        self.out_proj = nn.Linear(d_model, d_model, bias=False, **factory)

    def project_in(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x, z = super().project_in(x)
        return x, F.silu(self.conv1d_z(z.mT)).mT

    def project(self, call: Call) -> Selection:
        given = super().project(call)
        if self.compat != "published":
            return given
        bias = given.delta_bias
        return given._replace(delta_bias=self.path_parameters.step_bias(self) if bias is None else 2 * bias)

    def finish(self, y: Tensor, given: Selection) -> Tensor:
        return applied(self.out_proj, torch.cat([y, given.gate], -1))

    def flops(self, grid: Grid | tuple[int, ...]) -> int:
        """As of Mamba; the second half is convolved as well, and both go into the last projection."""
        length, _ = self._visits(grid)
        return super().flops(grid) + 2 * length * self.d_inner * (self.d_model + self.d_conv)


class ConvBlock(nn.Module):
    """Adds what two convolutions say of the map."""

    def __init__(self, channels: int, drop_path: nn.Module, **factory):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(channels, channels, 3, 1, 1, **factory), nn.BatchNorm2d(channels, **factory)
        self.act1 = nn.GELU(approximate="tanh")
        self.conv2, self.norm2 = nn.Conv2d(channels, channels, 3, 1, 1, **factory), nn.BatchNorm2d(channels, **factory)
        self.drop_path = drop_path

    def forward(self, x: Tensor) -> Tensor:
        """(batch, height, width, channels) to the same."""
        y = self.act1(self.norm1(self.conv1(x.permute(0, 3, 1, 2))))
        return x + self.drop_path(self.norm2(self.conv2(y)).permute(0, 2, 3, 1))


class MixingBlock(nn.Module):
    """Adds what a mixer or attention says of a window's tokens, then what an MLP says.

    Args:
        mixer: a mixer, called with the grid, or attention.
        layer_scale: what both are multiplied by at the start, channel by channel; None: they are not.
    """

    def __init__(
        self,
        channels: int,
        mixer: nn.Module,
        mlp_ratio: float,
        drop_path: nn.Module,
        layer_scale: float | None,
        **factory,
    ):
        super().__init__()
        self.norm1, self.mixer = nn.LayerNorm(channels, **factory), mixer
        self.norm2, self.mlp = nn.LayerNorm(channels, **factory), Mlp(channels, int(mlp_ratio * channels), **factory)
        self.drop_path, self.scaled = drop_path, layer_scale is not None
        if self.scaled:
            self.gamma_1, self.gamma_2 = (
                nn.Parameter(torch.full((channels,), layer_scale, **factory)) for _ in range(2)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(windows, height, width, channels) to the same."""
        y = normalised(self.norm1, x).to(x.dtype)
        if isinstance(self.mixer, Mamba):
            y = mix_grid(self.mixer, y)
        else:
            y = self.mixer(y.flatten(1, 2)).unflatten(1, y.shape[1:3])
        x = x + self.drop_path(self.gamma_1 * y if self.scaled else y)
        y = self.mlp(normalised(self.norm2, x).to(x.dtype))
        return x + self.drop_path(self.gamma_2 * y if self.scaled else y)

    def flops(self, sizes: Sequence[int]) -> int:
        """Floating point operations over one window."""
        total, tokens = count_flops(self.mlp, sizes)[0], sizes[0] * sizes[1]
        total += count_flops(self.mixer, sizes)[0]
        return total if isinstance(self.mixer, Mamba) else total + 4 * tokens * tokens * self.norm1.normalized_shape[0]


class WindowStage(Stage):
    """Blocks that see one window each; the map is filled up to whole windows with zeros, which the blocks see as tokens.

    Args:
        window: tokens of a window each way.
    """

    def __init__(self, blocks: Sequence[nn.Module], downsample: nn.Module | None, window: int):
        super().__init__(blocks, downsample)
        self.window = window

    def walked(self, grid: Grid) -> Grid:
        return Grid((self.window, self.window))

    def forward(self, x: Tensor, checkpointing: bool = False) -> Tensor:
        batch, height, width, channels = x.shape
        side = self.window
        x = F.pad(x, (0, 0, 0, -width % side, 0, -height % side))
        rows, columns = x.shape[1] // side, x.shape[2] // side
        x = x.reshape(batch, rows, side, columns, side, channels).transpose(2, 3).reshape(-1, side, side, channels)
        x = super().forward(x, checkpointing)
        x = x.reshape(batch, rows, columns, side, side, channels).transpose(2, 3)
        return x.reshape(batch, rows * side, columns * side, channels)[:, :height, :width]

    def flops(self, sizes: Sequence[int]) -> int:
        """Floating point operations over one map, and of what follows."""
        windows = -(-sizes[0] // self.window) * -(-sizes[1] // self.window)
        blocks = sum(count_flops(block, (self.window, self.window))[0] for block in self.blocks)
        return windows * blocks + count_flops(self.downsample, sizes)[0]


class Downsample(nn.Module):
    """Halves a map by a convolution."""

    def __init__(self, channels: int, **factory):
        super().__init__()
        self.reduction = nn.Sequential(nn.Conv2d(channels, 2 * channels, 3, 2, 1, bias=False, **factory))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, height, width, channels) to (batch, height / 2, width / 2, 2 channels), rounded up."""
        return self.reduction(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class MambaVision(Hierarchical):
    """MambaVision: the first half of its stages convolves, the others mix in windows.

    Args:
        img_size, in_chans, num_classes, global_pool, stride: as of VMamba.
        dim: channels of the first stage, each further one having twice as many. in_dim: between the stem's convolutions.
        depths: blocks of each stage; in a stage that mixes the last half of them, rounded down, are attention.
        num_heads: of attention, for each stage. window_size: tokens of a window each way, for each stage.
        mlp_ratio: inner channels of the MLPs per channel. layer_scale: see MixingBlock.
        d_state, backend: the mixers'. scan: paths over a window; block i walks scan.layer(i). scan_parameters: the mode's.
        compat: see HalfMixed.
        drop_rate: dropout before the head. drop_path_rate: stochastic depth, rising linearly over the blocks.
    """

    stages_name = "levels"

    @checked
    def __init__(
        self,
        img_size: Side | tuple[Side, Side] = 224,
        in_chans: Size = 3,
        num_classes: Count = 1000,
        global_pool: str = "avg",
        stride: Literal[4, 2, 1] | None = None,
        dim: Size = 80,
        in_dim: Size = 32,
        depths: tuple[Depth, ...] = (1, 3, 8, 4),
        num_heads: tuple[Size, ...] = (2, 4, 8, 16),
        window_size: tuple[Size, ...] = WINDOWS,
        mlp_ratio: Weight = 4,
        layer_scale: Weight | None = None,
        d_state: Size = 8,
        scan: str | Scan = "raster",
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
        self.scan = get_scan(scan, **(scan_parameters or {})) if isinstance(scan, str) else scan
        self.patch_embed = nn.ModuleDict({"conv_down": _stem(in_chans, in_dim, dim, stride, factory)})
        mixing = {"d_state": d_state, "compat": compat, "backend": backend, **factory}
        dropped, self.levels = drop_paths(drop_path_rate, sum(depths)), nn.ModuleList()
        widths = [dim * 2**stage for stage in range(len(depths))]
        for stage, (width, depth, heads, window) in enumerate(zip(widths, depths, num_heads, window_size, strict=True)):
            numbers = range(sum(depths[:stage]), sum(depths[: stage + 1]))
            down = Downsample(width, **factory) if stage + 1 < len(depths) else None
            if stage < len(depths) // 2:
                self.levels.append(Stage([ConvBlock(width, dropped[number], **factory) for number in numbers], down))
                continue
            blocks = []
            for place, number in enumerate(numbers):
                if place < (depth + 1) // 2:
                    mixer = HalfMixed(width, scan=self.scan.layer(number), **mixing)
                else:
                    mixer = Attention(width, heads, qkv_bias=True, **factory)
                blocks.append(MixingBlock(width, mixer, mlp_ratio, dropped[number], layer_scale, **factory))
            self.levels.append(WindowStage(blocks, down, window))
        self.norm = nn.BatchNorm2d(widths[-1], **factory)
        self.head_drop = nn.Dropout(drop_rate)
        self._finish(img_size, widths, stride, num_classes, global_pool)

    def final_norm(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

    def _embed(self, x: Tensor) -> Tensor:
        return self.patch_embed["conv_down"](x)


def _stem(in_chans: int, between: int, channels: int, stride: int, factory: dict) -> nn.Sequential:
    first, second = {4: (2, 2), 2: (2, 1), 1: (1, 1)}[stride]
    return nn.Sequential(
        nn.Conv2d(in_chans, between, 3, first, 1, bias=False, **factory), nn.BatchNorm2d(between, eps=1e-4, **factory),
        nn.ReLU(), nn.Conv2d(between, channels, 3, second, 1, bias=False, **factory),
        nn.BatchNorm2d(channels, eps=1e-4, **factory), nn.ReLU(), ChannelsLast(),
    )  # fmt: skip


def checkpoint_filter_fn(state_dict: Mapping, model: MambaVision) -> dict[str, Tensor]:
    """A saved state dict as the model can load it."""
    return with_names(strip_wrapping(state_dict), ())


@checked(group="model")
def build(
    describe: dict,
    scan: str | Scan = "raster",
    size: Literal["micro", "tiny", "tiny2", "small", "base", "large", "large2", "large3"] | None = None,
    stride: Literal[4, 2, 1] | None = None,
    d_state: Size = 8,
    drop_path_rate: Rate = 0.0,
    compat: Literal["published"] | None = None,
    backend: Literal["auto", "cpu", "gpu", "reference"] = "auto",
) -> MambaVision:
    """A MambaVision for a data set, with windows no larger than a stage's map; arguments as of VMamba's `build` and MambaVision."""
    chosen, image_size = size_for(describe, size, SIZES), tuple(describe["image_size"])
    first = suitable_stride(image_size) if stride is None else stride
    grids = grids_of(image_size, [first * 2**stage for stage in range(len(chosen["depths"]))])
    windows = chosen.get("window_size", WINDOWS)
    chosen["window_size"] = tuple(min(window, max(grid.sizes)) for window, grid in zip(windows, grids, strict=True))
    return MambaVision(
        image_size, describe["channels"], describe["num_classes"], stride=stride, scan=scan, d_state=d_state,
        drop_path_rate=drop_path_rate, compat=compat, backend=backend, **chosen,
    )  # fmt: skip


COUNTS = {"tiny": (31.8, 82.3), "tiny2": (35.1, 82.7), "small": (50.1, 83.3), "base": (97.7, 84.2)}
COUNTS |= {"large": (228.0, 85.0), "large2": (241.6, 85.3)}
register(
    MambaVision,
    {
        "mambavision_micro": Variant("A small MambaVision.", SIZES["micro"], more={"input_size": (3, 32, 32)}),
        **{
            f"mambavision_{size}": Variant(
                f"MambaVision-{size}: {count} million parameters, ImageNet-1k {accuracy}%.",
                {**SIZES[size], "compat": "published"},
                more={"crop_pct": CROPS.get(size, 1.0)},
            )
            for size, (count, accuracy) in COUNTS.items()
        },
        "mambavision_large3": Variant(
            "MambaVision-L3: 739.6 million parameters, ImageNet-21k and then 1k 87.3% at 256 pixels.",
            {**SIZES["large3"], "compat": "published"}, more={"input_size": (3, 256, 256), "crop_pct": 1.0},
        ),
    },
    checkpoint_filter_fn, (0, 1, 2, 3), first_conv="patch_embed.conv_down.0", classifier="head",
    origin_url="https://github.com/NVlabs/MambaVision", paper_ids="arXiv:2407.08083",
)  # fmt: skip
