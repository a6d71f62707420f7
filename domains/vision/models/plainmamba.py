"""PlainMamba (arXiv 2403.17695): a plain stack whose mixers walk along four snakes and are told the direction of each step.

Parameter names are those of its checkpoints without the prefix `backbone.`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Literal

import torch
from timm.layers import trunc_normal_
from torch import Tensor, nn

from ....core.grid_blocks import mix_grid
from ....core.linear import normalised
from ....core.mixers.convolutions import GridConvolution
from ....core.mixers.mamba import Mamba, Selection
from ....core.mixers.mixer import Call
from ....core.ranges import Count, Depth, Rate, Side, Size, checked
from ....core.scans import Scan, moves
from ....core.scans import get as get_scan
from .backbone import Hierarchical, Stage, both_sides, drop_paths, fit_saved_positions, size_for, with_names
from .patches import suitable_patch_size
from .position import strip_wrapping
from .registration import Variant, register
from .stems import ChannelsLast, PatchConvolution

SIZES = {
    "micro": {"embed_dim": 48, "depth": 3, "convs": 1},
    "l1": {"embed_dim": 192, "depth": 24, "convs": 1, "depthwise_layers": (0,)},
    "l2": {"embed_dim": 384, "depth": 24, "convs": 2},
    "l3": {"embed_dim": 448, "depth": 36, "convs": 2},
}
MOVES = 5  # none, right, left, up, down


class DirectionAware(Mamba):
    """PlainMamba's mixer: one set of parameters for all paths, and what is added to B for the direction of each step.

    Args:
        d_model: channels of the tokens.
        d_conv: kernel of the convolution on the grid.
        scan: paths over a grid of two axes; the direction of a step that leads to no neighbour counts as none.
        compat: "published": step size, B and C of a step are those of the token that the raster order visits at that step, and the
            bias of the step size counts twice, as the published weights were trained; None: the paper's equations.
        options: as of Mamba.
    """

    def __init__(
        self, d_model: int, d_conv: int = 7, scan: str | Scan = "continuous", compat: str | None = None, **options
    ):
        options = {"parameters": "shared", "bias": True, **options}
        super().__init__(d_model, d_conv=d_conv, scan=scan, axes=2, conv=partial(GridConvolution), **options)
        self.compat = compat
        factory = {"device": self.D.device, "dtype": self.D.dtype}
        self.direction_Bs = nn.Parameter(trunc_normal_(torch.empty(MOVES, self.d_state, **factory), std=0.02))

    def shares_tokens(self) -> bool:
        return False

    def project(self, call: Call) -> Selection:
        given = super().project(call)
        moved, rank = moves(self.scan, call.sizes, call.x.device)
        delta, B, C, bias = given.delta, given.B, given.C, given.delta_bias
        if self.compat == "published":
            delta, B, C = (t[:, rank] for t in (delta, B, C))
            bias = self.dt_proj.bias if bias is None else 2 * bias
        elif B.dim() == 3:
            B = B[:, None]
        B = B + self.direction_Bs.to(B.dtype)[moved]
        return given._replace(delta=delta, B=B, C=C, delta_bias=bias)


class PlainMambaLayer(nn.Module):
    """Adds what the mixer says of the normalised tokens; with `depthwise` a convolution, norm and GELU take the sum's place."""

    def __init__(self, channels: int, mixer: nn.Module, drop_path: nn.Module, depthwise: bool, **factory):
        super().__init__()
        self.norm, self.mamba, self.drop_path = nn.LayerNorm(channels, **factory), mixer, drop_path
        self.dw = None
        if depthwise:
            convolution = nn.Conv2d(channels, channels, 3, 1, 1, groups=channels, bias=False, **factory)
            self.dw = nn.Sequential(convolution, nn.BatchNorm2d(channels, **factory), nn.GELU())

    def forward(self, x: Tensor) -> Tensor:
        """(batch, height, width, channels) to the same."""
        x = x + self.drop_path(mix_grid(self.mamba, normalised(self.norm, x).to(x.dtype)))
        return x if self.dw is None else self.dw(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class PlainMamba(Hierarchical):
    """PlainMamba: one stage.

    Args:
        img_size: side of the images, or (height, width), that its positions are learned for; others have them resampled.
        in_chans, num_classes, global_pool: as of VMamba.
        patch_size: pixels of a token each way, even; None: what suits the image size.
        embed_dim, depth: width and number of layers. convs: convolutions between stem and projection.
        depthwise_layers: the layers behind which a depthwise convolution stands.
        d_state, expand, scan, scan_parameters, compat, backend: the mixers' (DirectionAware).
        drop_rate: dropout before the head. drop_path_rate: stochastic depth, rising linearly over the layers.
    """

    norm_name = "ln1"

    @checked
    def __init__(
        self,
        img_size: Side | tuple[Side, Side] = 224,
        in_chans: Size = 3,
        num_classes: Count = 1000,
        global_pool: str = "avg",
        patch_size: Side | None = 16,
        embed_dim: Size = 192,
        depth: Depth = 24,
        convs: Count = 1,
        depthwise_layers: tuple[Count, ...] = (),
        d_state: Size = 16,
        expand: Size = 2,
        scan: str | Scan = "continuous",
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
        patch_size = max(2, suitable_patch_size(img_size) // 2 * 2) if patch_size is None else patch_size
        self.patch_embed = _stem(in_chans, embed_dim, patch_size, convs, factory)
        self.pos_embed = nn.Parameter(
            torch.zeros(1, -(-img_size[0] // patch_size) * -(-img_size[1] // patch_size), embed_dim, **factory)
        )
        self.scan = get_scan(scan, **(scan_parameters or {})) if isinstance(scan, str) else scan
        mixing, layers = {"d_state": d_state, "expand": expand, "compat": compat, "backend": backend, **factory}, []
        for number, drop_path in enumerate(drop_paths(drop_path_rate, depth)):
            mixer = DirectionAware(embed_dim, scan=self.scan.layer(number), **mixing)
            layers.append(PlainMambaLayer(embed_dim, mixer, drop_path, number in depthwise_layers, **factory))
        self.layers = nn.ModuleList([Stage(layers)])
        self.ln1 = nn.LayerNorm(embed_dim, eps=1e-6, **factory)
        self.head_drop = nn.Dropout(drop_rate)
        self._finish(img_size, [embed_dim], patch_size, num_classes, global_pool)


def _stem(in_chans: int, embed_dim: int, patch_size: int, convs: int, factory: dict) -> nn.Module:
    width, side = min(64, embed_dim), max(patch_size // 2, 1)

    def convolved(channels: int, kernel: int, stride: int) -> nn.Sequential:
        layer = nn.Conv2d(channels, width, kernel, stride, kernel // 2, bias=False, **factory)
        return nn.Sequential(layer, nn.BatchNorm2d(width, **factory), nn.ReLU())

    stem = nn.Sequential()
    stem.add_module("stem", convolved(in_chans, 7, 2))
    layers = [layer for _ in range(convs) for layer in convolved(width, 3, 1)]
    stem.add_module("convs", nn.Sequential(*layers))
    stem.add_module("projection", PatchConvolution(width, embed_dim, side, side, **factory))
    stem.add_module("last", ChannelsLast())
    return stem


def checkpoint_filter_fn(state_dict: Mapping, model: PlainMamba) -> dict[str, Tensor]:
    """A saved state dict as the model can load it: unwrapped, without prefixes, positions resampled to the model's."""
    rules = ((r"^backbone\.", ""), (r"^head\.fc\.", "head."), (r"^layers\.(\d+)\.(?!blocks)", r"layers.0.blocks.\1."))
    state = with_names(strip_wrapping(state_dict), rules)
    fit_saved_positions(state, model.grid)
    return state


@checked(group="model")
def build(
    describe: dict,
    scan: str | Scan = "continuous",
    size: Literal["micro", "l1", "l2", "l3"] | None = None,
    patch_size: Side | None = None,
    d_state: Size = 16,
    drop_path_rate: Rate = 0.0,
    compat: Literal["published"] | None = None,
    backend: Literal["auto", "cpu", "gpu", "reference"] = "auto",
) -> PlainMamba:
    """A PlainMamba for a data set.

    Args:
        describe: the data set's own description: channels, image_size (height, width), num_classes, model_size.
        scan: the scan of its layers.
        size: a size of SIZES; None: what the data set asks for ("tiny": l1).
        patch_size: pixels; None: what suits the image size.
    """
    return PlainMamba(
        tuple(describe["image_size"]), describe["channels"], describe["num_classes"], patch_size=patch_size, scan=scan,
        d_state=d_state, drop_path_rate=drop_path_rate, compat=compat, backend=backend,
        **size_for(describe, size, {**SIZES, "tiny": SIZES["l1"]}),
    )  # fmt: skip


register(
    PlainMamba,
    {
        "plainmamba_micro": Variant(
            "A small PlainMamba.", {**SIZES["micro"], "patch_size": None}, more={"input_size": (3, 32, 32)}
        ),
        **{
            f"plainmamba_{size}": Variant(
                f"PlainMamba-{size.upper()}: {count} million parameters, ImageNet-1k {accuracy}%.",
                {**SIZES[size], "compat": "published"},
                {"in1k": {"hf_hub_id": "ChenhongyiYang/PlainMamba", "hf_hub_filename": f"{size}.pth"}},
            )
            for size, count, accuracy in (("l1", 7.6, 77.9), ("l2", 26.1, 81.6), ("l3", 51.0, 82.3))
        },
    },
    checkpoint_filter_fn, 1, first_conv="patch_embed.stem.0", classifier="head", license="apache-2.0",
    origin_url="https://github.com/ChenhongyiYang/PlainMamba", paper_ids="arXiv:2403.17695",
)  # fmt: skip
