"""MSVMamba (arXiv 2405.14174): one path sees the whole map, three see one of a quarter of its tokens, one after the other.

Parameter names are those of its checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....core.grid_blocks import PatchMerging, count_flops, mix_grid
from ....core.linear import normalised
from ....core.mixers.mamba import Selection
from ....core.mixers.mixer import Call
from ....core.mixers.path_parameters import StackedParameters
from ....core.mixers.ss2d import SS2D
from ....core.ops.selective_scan import selective_scan
from ....core.ranges import Count, Depth, Positive, Rate, Side, Size, checked
from ....core.scans import Grid, Scan
from ....core.scans import get as get_scan
from ....core.scans.coarse import coarse_paths
from .backbone import Hierarchical, both_sides, make_stages, size_for, suitable_stride
from .registration import Variant, register
from .stems import patch_stem
from .vmamba import checkpoint_filter_fn as vmamba_filter_fn

SIZES = {
    "micro": {"dims": (32, 64), "depths": (1, 1)},
    "nano": {"dims": 48, "depths": (1, 2, 5, 2)},
    "mini": {"dims": 64, "depths": (1, 2, 5, 2)},
    "tiny": {"dims": 96, "depths": (1, 2, 9, 2)},
}
STEP = 2


class SqueezeExcitation(nn.Module):
    """Multiplies each channel by a number of 0 to 1 that the mean of all tokens says: (batch, length, channels) to the same."""

    def __init__(self, channels: int, reduction: int = 8, **factory):
        super().__init__()
        narrow = max(channels // reduction, 1)
        self.fc = nn.Sequential(
            nn.Linear(channels, narrow, bias=False, **factory), nn.ReLU(),
            nn.Linear(narrow, channels, bias=False, **factory), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc(x.mean(1, keepdim=True))


class Scales(NamedTuple):
    """What each scale gives to the scan, and the gate. coarse: one sequence, path after path; None: there is one path."""

    fine: Selection
    coarse: Selection | None
    gate: Tensor


class MultiScaleSS2D(SS2D):
    """The scan's first path sees the whole map; its others see the map of a strided convolution, one path after the other.

    The others share one set of parameters, the first of two; what they say is enlarged and added, both normalised by the same norm.

    Args:
        d_model, d_state, expand and the rest of `options`: as of SS2D.
        scan: its further paths walk the coarse map, of every second token along each axis (core.scans.coarse).
    """

    unrolls = False

    def __init__(
        self, d_model: int, d_state: int = 1, scan: str | Scan = "multi_scale", device=None, dtype=None, **options
    ):
        def parameters(paths: int) -> StackedParameters:
            return StackedParameters(min(paths, 2))

        options = {"parameters": parameters, **options}
        super().__init__(d_model, d_state, scan=scan, device=device, dtype=dtype, **options)
        factory, inner = {"device": device, "dtype": dtype}, self.d_inner
        if self.paths > 1:
            self.conv2d_b1 = nn.Conv2d(inner, inner, 7, STEP, 3, groups=inner, **factory)
        self.se = SqueezeExcitation(inner, **factory)

    def shares_tokens(self) -> bool:
        return False

    def project(self, call: Call) -> Scales:
        x, gate = self.project_in(call.x)
        fine = self.convolution(self, x, call, None)[0]
        fine = self._selection(fine, -1, None if call.order is None else call.order[:1])
        if self.paths == 1:
            return Scales(fine, None, gate)
        image = x.unflatten(1, call.sizes).movedim(-1, 1)
        coarse = F.silu(self.conv2d_b1(image)).flatten(2).mT
        walked, _ = coarse_paths(self.scan, call.sizes, STEP, x.device)
        return Scales(fine, self._selection(coarse.index_select(1, walked), 0, None), gate)

    def _selection(self, x: Tensor, number: int, order: Tensor | None) -> Selection:
        """What one set of parameters makes of tokens (batch, length, channels)."""
        step, B, C = F.linear(x, self.x_proj_weight[number]).split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        delta, rows = F.linear(step, self.dt_projs_weight[number]), (len(self.x_proj_weight), -1)
        log, D = (t.unflatten(0, rows)[number] for t in (self.A_logs, self.Ds))
        A = -torch.exp(log if log.dtype == torch.float64 else log.float())
        return Selection(x, delta, A, B, C, D, self.dt_projs_bias[number], order, None, None, None)

    def mix_tokens(self, given: Scales, call: Call) -> tuple[Tensor, None]:
        y = self._scanned(given.fine)
        if given.coarse is None:
            return y, None
        walked = self._scanned(given.coarse)
        _, visited = coarse_paths(self.scan, call.sizes, STEP, y.device)
        # A further row of zeros for what a path does not visit.
        rows = F.pad(walked, (0, 0, 0, 1)).index_select(1, visited.flatten()).unflatten(1, visited.shape).sum(1)
        sizes = [-(-size // STEP) for size in call.sizes]
        if not rows.numel():  # which PyTorch does not enlarge
            return y, None
        enlarged = F.interpolate(rows.mT.unflatten(-1, sizes), size=call.sizes, mode="bilinear")
        return y + enlarged.flatten(2).mT, None

    def _scanned(self, part: Selection) -> Tensor:
        y = selective_scan(
            part.x,
            part.delta,
            part.A,
            part.B,
            part.C,
            part.D,
            None,
            part.delta_bias,
            True,
            part.order,
            backend=self.backend,
        )
        return normalised(self.out_norm, y).to(y.dtype)

    def finish(self, y: Tensor, given: Scales) -> Tensor:
        return self.out_proj(self.se(y) * F.silu(given.gate))

    def flops(self, grid: Grid | tuple[int, ...]) -> int:
        """Floating point operations over one grid; both scales count their own convolution, projections and scan."""
        sizes = tuple(grid.sizes if isinstance(grid, Grid) else grid)
        length, inner = sizes[0] * sizes[1], self.d_inner
        coarse = -(-sizes[0] // STEP) * -(-sizes[1] // STEP)
        walked = len(coarse_paths(self.scan, sizes, STEP)[0]) if self.paths > 1 else 0
        layers = 3 * self.d_model * inner * length + 9 * inner * length + (49 * inner * coarse if self.paths > 1 else 0)
        step = (length + walked) * inner * (2 * self.dt_rank + 2 * self.d_state)
        return 2 * (layers + step + self.se.fc[0].weight.numel() * 2) + 9 * (length + walked) * inner * self.d_state


class ConvolvedMLP(nn.Module):
    """An MLP whose wide layer is convolved with its neighbours, depthwise, and added: (batch, channels, height, width)."""

    def __init__(self, channels: int, expansion: int = 2, **factory):
        super().__init__()
        wide = expansion * channels
        self.linear1 = nn.Conv2d(channels, wide, 1, **factory)
        self.dwc = nn.Conv2d(wide, wide, 3, 1, 1, groups=wide, **factory)
        self.act = nn.GELU()
        self.linear2 = nn.Conv2d(wide, channels, 1, **factory)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear1(x)
        return self.linear2(self.act(x + self.dwc(x)))


class MultiScaleBlock(nn.Module):
    """Adds what the mixer says of the normalised tokens, then what the convolved MLP says."""

    def __init__(self, channels: int, mixer: nn.Module, drop_path: nn.Module, **factory):
        super().__init__()
        self.norm, self.op, self.drop_path = nn.LayerNorm(channels, **factory), mixer, drop_path
        self.norm2, self.convFFN = nn.LayerNorm(channels, **factory), ConvolvedMLP(channels, **factory)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, height, width, channels) to the same."""
        x = x + self.drop_path(mix_grid(self.op, normalised(self.norm, x).to(x.dtype)))
        y = normalised(self.norm2, x).to(x.dtype).permute(0, 3, 1, 2)
        return x + self.drop_path(self.convFFN(y).permute(0, 2, 3, 1))

    def flops(self, sizes: Sequence[int]) -> int:
        """Floating point operations over one grid."""
        return self.op.flops(tuple(sizes)) + count_flops(self.convFFN, sizes)[0]


class MSVMamba(Hierarchical):
    """MSVMamba.

    Args:
        img_size, in_chans, num_classes, global_pool, stride, dims, depths: as of VMamba.
        d_state, expand, backend: the mixers' (MultiScaleSS2D).
        scan: a scan mode or Scan; block i walks scan.layer(i). scan_parameters: the mode's parameters.
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
        dims: Size | tuple[Size, ...] = 96,
        depths: tuple[Depth, ...] = (1, 2, 9, 2),
        d_state: Size = 1,
        expand: Positive = 2,
        scan: str | Scan = "multi_scale",
        scan_parameters: dict | None = None,
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
        self.patch_embed = patch_stem(in_chans, widths[0], stride, **factory)

        def block(stage: int, number: int, drop_path: nn.Module) -> nn.Module:
            mixing = {"expand": expand, "backend": backend, **factory}
            mixer = MultiScaleSS2D(widths[stage], d_state, self.scan.layer(number), **mixing)
            return MultiScaleBlock(widths[stage], mixer, drop_path, **factory)

        self.layers = make_stages(depths, widths, block, PatchMerging, drop_path_rate, factory)
        self.classifier = nn.ModuleDict({"norm": nn.LayerNorm(widths[-1], **factory), "head": nn.Identity()})
        self.head_drop = nn.Dropout(drop_rate)
        self._finish(img_size, widths, stride, num_classes, global_pool)


def checkpoint_filter_fn(state_dict: Mapping, model: MSVMamba) -> dict[str, Tensor]:
    """A saved state dict as the model can load it."""
    return vmamba_filter_fn(state_dict, model)


@checked(group="model")
def build(
    describe: dict,
    scan: str | Scan = "multi_scale",
    size: Literal["micro", "nano", "mini", "tiny"] | None = None,
    stride: Literal[4, 2, 1] | None = None,
    drop_path_rate: Rate = 0.0,
    backend: Literal["auto", "cpu", "gpu", "reference"] = "auto",
) -> MSVMamba:
    """An MSVMamba for a data set; arguments as of VMamba's `build` and of MSVMamba."""
    return MSVMamba(
        tuple(describe["image_size"]), describe["channels"], describe["num_classes"], stride=stride, scan=scan,
        drop_path_rate=drop_path_rate, backend=backend, **size_for(describe, size, SIZES),
    )  # fmt: skip


register(
    MSVMamba,
    {
        "msvmamba_micro": Variant("A small MSVMamba.", SIZES["micro"], more={"input_size": (3, 32, 32)}),
        "msvmamba_nano": Variant("MSVMamba-N: 6.9 million parameters, ImageNet-1k 77.3%.", SIZES["nano"]),
        "msvmamba_mini": Variant("The paper's MSVMamba-M: 11.9 million parameters, ImageNet-1k 79.8%.", SIZES["mini"]),
        "msvmamba_tiny": Variant("MSVMamba-T: 33.1 million parameters, ImageNet-1k 82.8%.", SIZES["tiny"]),
    },
    checkpoint_filter_fn, (0, 1, 2, 3), first_conv="patch_embed.0", classifier="classifier.head",
    origin_url="https://github.com/YuHengsss/MSVMamba", paper_ids="arXiv:2405.14174",
)  # fmt: skip
