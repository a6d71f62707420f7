"""Spatial-Mamba (arXiv 2410.15091): one raster scan, whose states dilated convolutions blend on the grid before they are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....core.mixers.mamba import MambaState, Selection
from ....core.mixers.mixer import Call
from ....core.mixers.ss2d import SS2D
from ....core.ops.selective_scan import selective_scan
from ....core.ranges import Count, Depth, Positive, Rate, Side, Size, Weight, checked
from ....core.scans import Grid, Scan
from ....core.scans import get as get_scan
from .backbone import Hierarchical, both_sides, make_stages, size_for, suitable_stride, with_names
from .mlla import InvertedDownsample, PositionedBlock, ResidualStem
from .position import strip_wrapping
from .registration import Variant, register

SIZES = {
    "micro": {"dims": 32, "depths": (1, 1)},
    "tiny": {"dims": 64, "depths": (2, 4, 8, 4)},
    "small": {"dims": 64, "depths": (2, 4, 21, 5)},
    "base": {"dims": 96, "depths": (2, 4, 21, 5)},
}
DILATIONS = {"kernel_3": 1, "kernel_3_1": 3, "kernel_3_2": 5}


class StateFusion(nn.Module):
    """The weighted sum of depthwise convolutions of 3x3 with dilations 1, 3 and 5 (structure-aware state fusion, section 3.2).

    Args:
        channels: of the states.
        compat: "published": in evaluation zeros lie beyond the border, as the published code had it; None: the border's values, as
            in training.
    """

    def __init__(self, channels: int, compat: str | None, **factory):
        super().__init__()
        for name in DILATIONS:
            self.register_parameter(name, nn.Parameter(torch.ones(channels, 1, 3, 3, **factory)))
        self.alpha = nn.Parameter(torch.ones(len(DILATIONS), **factory))
        self.compat = compat

    def forward(self, states: Tensor) -> Tensor:
        """(batch, channels, height, width) to the same."""
        mode = "constant" if self.compat == "published" and not self.training else "replicate"
        total = 0
        for share, (name, dilation) in zip(self.alpha, DILATIONS.items(), strict=True):
            padded = F.pad(states, (dilation,) * 4, mode=mode)
            weight = (share * getattr(self, name)).to(states.dtype)
            total = total + F.conv2d(padded, weight, dilation=dilation, groups=states.shape[1])
        return total


class StateFused(SS2D):
    """SS2D with one state a channel, which is blended with its neighbours' on the grid, along each path's order, before it is read.

    Args:
        compat: see StateFusion. options: as of SS2D.
    """

    unrolls = False

    def __init__(self, d_model: int, scan: str | Scan = "raster", compat: str | None = None, **options):
        super().__init__(d_model, d_state=1, scan=scan, **options)
        self.state_fusion = StateFusion(self.d_inner, compat, device=options.get("device"), dtype=options.get("dtype"))

    def shares_tokens(self) -> bool:
        return False

    def mix_tokens(self, given: Selection, call: Call) -> tuple[Tensor, MambaState]:
        batch, length, channels = call.x.shape[0], call.x.shape[1], self.d_inner
        # With C = 1 and without D a scan of one state a channel says the states themselves.
        states, ssm = selective_scan(
            given.x, given.delta, given.A, given.B, torch.ones_like(given.C), None, None, given.delta_bias, True, given.order,
            call.seq_idx, None, True, "none", self.backend,
        )  # fmt: skip
        on_grid = states.reshape(batch * self.paths, *call.sizes, channels).permute(0, 3, 1, 2)
        if 0 not in on_grid.shape:
            on_grid = self.state_fusion(on_grid)
        states = on_grid.permute(0, 2, 3, 1).reshape(batch, self.paths, length, channels)
        C, D = given.C.reshape(batch, self.paths, length, 1), given.D.reshape(self.paths, channels).sum(0)
        return (states * C.to(states.dtype)).sum(1).to(given.x.dtype) + given.x * D.to(given.x.dtype), ssm

    def flops(self, grid: Grid | tuple[int, ...]) -> int:
        return super().flops(grid) + 2 * self.paths * self._visits(grid)[0] * self.d_inner * 9 * len(DILATIONS)


class SpatialMamba(Hierarchical):
    """Spatial-Mamba.

    Args:
        img_size, in_chans, num_classes, global_pool, stride, dims, depths: as of VMamba.
        expand, backend: the mixers' (core.mixers.ss2d.SS2D). mlp_ratio: inner channels of the MLPs per channel.
        scan: a scan mode or Scan; block i walks scan.layer(i). scan_parameters: the mode's parameters.
        compat: see StateFusion.
        drop_rate: dropout before the head. drop_path_rate: stochastic depth, rising linearly over the blocks.
    """

    @checked
    def __init__(
        self,
        img_size: Side | tuple[Side, Side] = 224,
        in_chans: Size = 3,
        num_classes: Count = 1000,
        global_pool: str = "avg",
        stride: Literal[4, 2, 1] | None = None,
        dims: Size | tuple[Size, ...] = 64,
        depths: tuple[Depth, ...] = (2, 4, 8, 4),
        expand: Positive = 2,
        mlp_ratio: Weight = 4,
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
        widths = [dims * 2**stage for stage in range(len(depths))] if isinstance(dims, int) else list(dims)
        self.scan = get_scan(scan, **(scan_parameters or {})) if isinstance(scan, str) else scan
        self.patch_embed = ResidualStem(in_chans, widths[0], stride, **factory)

        def block(stage: int, number: int, drop_path: nn.Module) -> nn.Module:
            mixer = StateFused(
                widths[stage], self.scan.layer(number), compat, expand=expand, backend=backend, **factory
            )
            return PositionedBlock(widths[stage], mixer, mlp_ratio, drop_path, **factory)

        self.layers = make_stages(depths, widths, block, InvertedDownsample, drop_path_rate, factory)
        self.norm = nn.LayerNorm(widths[-1], **factory)
        self.head_drop = nn.Dropout(drop_rate)
        self._finish(img_size, widths, stride, num_classes, global_pool)


RENAMED = ((r"\.ln_([12])\.", r".norm\1."), (r"\.self_attention\.", ".attn."))
OF_ONE_PATH = ("x_proj_weight", "dt_projs_weight", "dt_projs_bias")


def checkpoint_filter_fn(state_dict: Mapping, model: SpatialMamba) -> dict[str, Tensor]:
    """A saved state dict as the model can load it: unwrapped, under its names, with an axis for the path."""
    state, own = with_names(strip_wrapping(state_dict), RENAMED), model.state_dict()
    for name, value in state.items():
        if name.endswith(OF_ONE_PATH) and name in own and own[name].numel() == value.numel():
            state[name] = value.reshape(own[name].shape)
    return state


@checked(group="model")
def build(
    describe: dict,
    scan: str | Scan = "raster",
    size: Literal["micro", "tiny", "small", "base"] | None = None,
    stride: Literal[4, 2, 1] | None = None,
    drop_path_rate: Rate = 0.0,
    compat: Literal["published"] | None = None,
    backend: Literal["auto", "cpu", "gpu", "reference"] = "auto",
) -> SpatialMamba:
    """A Spatial-Mamba for a data set; arguments as of VMamba's `build` and of SpatialMamba."""
    return SpatialMamba(
        tuple(describe["image_size"]), describe["channels"], describe["num_classes"], stride=stride, scan=scan,
        drop_path_rate=drop_path_rate, compat=compat, backend=backend, **size_for(describe, size, SIZES),
    )  # fmt: skip


register(
    SpatialMamba,
    {
        "spatialmamba_micro": Variant("A small Spatial-Mamba.", SIZES["micro"], more={"input_size": (3, 32, 32)}),
        **{
            f"spatialmamba_{size}": Variant(
                f"Spatial-Mamba-{size[0].upper()}: {count} million parameters, ImageNet-1k {accuracy}%.",
                {**SIZES[size], "compat": "published"},
            )
            for size, count, accuracy in (("tiny", 27, 83.5), ("small", 43, 84.6), ("base", 96, 85.3))
        },
    },
    checkpoint_filter_fn, (0, 1, 2, 3), first_conv="patch_embed.conv1.conv", classifier="head", license="apache-2.0",
    origin_url="https://github.com/EdwardChasel/Spatial-Mamba", paper_ids="arXiv:2410.15091",
)  # fmt: skip
