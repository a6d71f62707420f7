"""VSSD (arXiv 2407.18559): state space duality without an order, so that every token sees all of them; attention in the last stage.

Each token adds to one state, weighed by its step and its head's decay; all tokens read that state (section 3.2, equation 9).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....core.errors import UserError
from ....core.initialisation import init_step_bias
from ....core.linear import applied, normalised
from ....core.mixers.path_layers import convolved_on_grid
from ....core.mixers.walk import sizes_of
from ....core.ranges import Count, Depth, Positive, Rate, Side, Size, Weight, checked
from .backbone import Hierarchical, both_sides, make_stages, size_for, suitable_stride, with_names
from .mlla import InvertedDownsample, PositionedBlock, ResidualStem
from .position import strip_wrapping
from .registration import Variant, register

SIZES = {
    "micro": {"dims": 32, "depths": (1, 1), "num_heads": (2, 4), "d_state": 16},
    "mini": {"dims": 48, "depths": (2, 2, 8, 4), "d_state": 48},
    "tiny": {"dims": 64, "depths": (2, 4, 8, 4)},
    "small": {"dims": 64, "depths": (3, 4, 21, 5)},
    "base": {"dims": 96, "depths": (3, 4, 21, 5), "num_heads": (3, 6, 12, 24)},
}


class NonCausalDuality(nn.Module):
    """VSSD's mixer (NC-SSD).

    Args:
        d_model: channels of the tokens. heads: divide expand * d_model.
        d_state: states of a head. d_conv: kernel of the convolution on the grid. expand: inner channels per channel.
    """

    def __init__(
        self, d_model: Size, heads: Size, d_state: Size = 64, d_conv: Size = 3, expand: Positive = 2, device=None, dtype=None
    ):  # fmt: skip
        super().__init__()
        factory = {"device": device, "dtype": dtype}
        inner = int(expand * d_model)
        if inner % heads:
            raise UserError("heads must share the inner channels evenly", given=f"{heads} heads, {inner} channels")
        self.d_model, self.d_inner, self.heads, self.d_state, self.d_conv = d_model, inner, heads, d_state, d_conv
        mixed = inner + 2 * d_state
        self.in_proj = nn.Linear(d_model, inner + mixed + heads, bias=False, **factory)
        self.conv2d = nn.Conv2d(mixed, mixed, d_conv, groups=mixed, **factory)
        self.dt_bias = nn.Parameter(torch.empty(heads, **factory))
        init_step_bias(self.dt_bias, 0.001, 0.1, 1e-4)
        self.A_log = nn.Parameter(torch.empty(heads, device=device).uniform_(1, 16).log().to(dtype))
        self.D = nn.Parameter(torch.ones(heads, **factory))
        self.norm = nn.LayerNorm(inner, **factory)
        self.out_proj = nn.Linear(inner, d_model, bias=False, **factory)

    def forward(self, x: Tensor, grid, state=None, seq_idx=None) -> tuple[Tensor, None]:
        """(batch, length, d_model) on a grid to the same, and no state."""
        sizes, extra = sizes_of(grid, x.shape[1])
        z, mixed, step = applied(self.in_proj, x).split(
            [self.d_inner, self.d_inner + 2 * self.d_state, self.heads], dim=-1
        )
        mixed = F.silu(convolved_on_grid(self.conv2d, mixed, self.d_conv, sizes, extra))
        value, B, C = mixed.split([self.d_inner, self.d_state, self.d_state], dim=-1)
        value = value.unflatten(-1, (self.heads, -1))
        # The decay's sign is left out: a token's weight is positive (the published configurations' choice).
        weight = F.softplus(step + self.dt_bias) * self.A_log.exp()
        seen = torch.einsum("bln,blhp->bhnp", B, value * weight[..., None].to(value.dtype))
        y = torch.einsum("bln,bhnp->blhp", C, seen) + value * self.D.to(value.dtype)[:, None]
        return applied(self.out_proj, normalised(self.norm, y.flatten(2)).to(z.dtype) * z), None

    def flops(self, grid: Sequence[int]) -> int:
        """Floating point operations over one grid."""
        layers = self.in_proj.weight.numel() + self.conv2d.weight.numel() + self.out_proj.weight.numel()
        return 2 * math.prod(grid) * (layers + 2 * self.d_state * self.d_inner)


class GlobalAttention(nn.Module):
    """Attention over all tokens, called like a mixer."""

    def __init__(self, d_model: Size, heads: Size, device=None, dtype=None):
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(d_model, 3 * d_model, bias=False, device=device, dtype=dtype)
        self.to_out = nn.Linear(d_model, d_model, device=device, dtype=dtype)

    def forward(self, x: Tensor, grid=None, state=None, seq_idx=None) -> tuple[Tensor, None]:
        """(batch, length, d_model) to the same, and no state."""
        query, key, value = self.to_qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(query, key, value)
        return self.to_out(y.transpose(1, 2).flatten(2)), None

    def flops(self, grid: Sequence[int]) -> int:
        """Floating point operations over one grid."""
        tokens, width = math.prod(grid), self.to_out.in_features
        return 2 * tokens * 4 * width * width + 4 * tokens * tokens * width


class VSSD(Hierarchical):
    """VSSD: no scan, since no token comes before another.

    Args:
        img_size, in_chans, num_classes, global_pool, stride, dims, depths: as of VMamba.
        num_heads: of each stage's mixers. d_state, expand: see NonCausalDuality. mlp_ratio: inner channels of the MLPs per channel.
        attention_stages: the stages, counted from the end, whose mixers are attention.
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
        num_heads: tuple[Size, ...] = (2, 4, 8, 16),
        d_state: Size = 64,
        expand: Positive = 2,
        mlp_ratio: Weight = 4,
        attention_stages: Count = 1,
        drop_rate: Rate = 0.0,
        drop_path_rate: Rate = 0.0,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        factory, img_size = {"device": device, "dtype": dtype}, both_sides(img_size)
        stride = suitable_stride(img_size) if stride is None else stride
        widths = [dims * 2**stage for stage in range(len(depths))] if isinstance(dims, int) else list(dims)
        self.patch_embed = ResidualStem(in_chans, widths[0], stride, **factory)
        sizes = list(zip(widths, num_heads, strict=True))

        def block(stage: int, number: int, drop_path: nn.Module) -> nn.Module:
            width, heads = sizes[stage]
            if stage < len(depths) - attention_stages:
                mixer = NonCausalDuality(width, heads, d_state, expand=expand, **factory)
            else:
                mixer = GlobalAttention(width, heads, **factory)
            return PositionedBlock(width, mixer, mlp_ratio, drop_path, **factory)

        self.layers = make_stages(depths, widths, block, InvertedDownsample, drop_path_rate, factory)
        self.norm = nn.LayerNorm(widths[-1], **factory)
        self.head_drop = nn.Dropout(drop_rate)
        self._finish(img_size, widths, stride, num_classes, global_pool)


def checkpoint_filter_fn(state_dict: Mapping, model: VSSD) -> dict[str, Tensor]:
    """A saved state dict as the model can load it."""
    return with_names(strip_wrapping(state_dict), ())


@checked(group="model")
def build(
    describe: dict,
    size: Literal["micro", "mini", "tiny", "small", "base"] | None = None,
    stride: Literal[4, 2, 1] | None = None,
    d_state: Size | None = None,
    drop_path_rate: Rate = 0.0,
) -> VSSD:
    """A VSSD for a data set; arguments as of VMamba's `build` and of VSSD."""
    chosen = size_for(describe, size, SIZES) | ({} if d_state is None else {"d_state": d_state})
    return VSSD(
        tuple(describe["image_size"]), describe["channels"], describe["num_classes"], stride=stride,
        drop_path_rate=drop_path_rate, **chosen,
    )  # fmt: skip


register(
    VSSD,
    {
        "vssd_micro": Variant("A small VSSD.", SIZES["micro"], more={"input_size": (3, 32, 32)}),
        "vssd_mini": Variant("The paper's VSSD-M: 13.5 million parameters, ImageNet-1k 82.5%.", SIZES["mini"]),
        "vssd_tiny": Variant("VSSD-T: 24.3 million parameters, ImageNet-1k 83.6%.", SIZES["tiny"]),
        "vssd_small": Variant("VSSD-S: 40.0 million parameters, ImageNet-1k 84.1%.", SIZES["small"]),
        "vssd_base": Variant("VSSD-B: 89 million parameters, ImageNet-1k 84.7%.", SIZES["base"]),
    },
    checkpoint_filter_fn, (0, 1, 2, 3), first_conv="patch_embed.conv1.conv", classifier="head",
    origin_url="https://github.com/YuHengsss/VSSD", paper_ids="arXiv:2407.18559",
)  # fmt: skip
