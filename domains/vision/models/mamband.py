"""Mamba-ND (arXiv 2402.05892): one plain mixer a layer, whose path alternates between the axes and their two directions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from ....core.grid_blocks import PatchMerging, mix_grid
from ....core.linear import normalised
from ....core.mixers.mamba import Mamba
from ....core.ranges import Count, Depth, Positive, Rate, Side, Size, checked
from ....core.scans import Scan
from ....core.scans import get as get_scan
from .backbone import Hierarchical, both_sides, fit_saved_positions, make_stages, size_for, with_names
from .position import strip_wrapping
from .registration import Variant, register
from .stems import ChannelsLast, PatchConvolution

SIZES = {
    "micro": {"embed_dim": 48, "depths": (4, 2)},
    "small": {"embed_dim": 384, "depths": (10, 14)},
}


class NormalisedBlock(nn.Module):
    """Normalises the tokens, and adds what the mixer says of them: what goes past the mixer is normalised too, as published.

    Args:
        compat: "published", or None: the tokens themselves go past the mixer, as in other residual networks.
    """

    def __init__(self, channels: int, mixer: nn.Module, drop_path: nn.Module, compat: str | None, **factory):
        super().__init__()
        self.norm, self.mixer, self.drop_path = nn.LayerNorm(channels, **factory), mixer, drop_path
        self.compat = compat

    def forward(self, x: Tensor) -> Tensor:
        """(batch, height, width, channels) to the same."""
        y = normalised(self.norm, x).to(x.dtype)
        return (y if self.compat == "published" else x) + self.drop_path(mix_grid(self.mixer, y))


class UnfoldedMerging(PatchMerging):
    """PatchMerging with the four tokens' values of a channel side by side, row by row, as torch's unfold has them."""

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        x = x.unflatten(1, (-1, 2)).unflatten(3, (-1, 2)).permute(0, 1, 3, 5, 2, 4).flatten(3)
        return self.reduction(normalised(self.norm, x).to(x.dtype))


class MambaND(Hierarchical):
    """Mamba-ND for images: two stages of the same width.

    Args:
        img_size: side of the images, or (height, width), that its positions are learned for; others have them resampled.
        in_chans, num_classes, global_pool: as of VMamba.
        patch_size: pixels of a token of the first stage each way.
        embed_dim: width. depths: layers before and after the grid is halved.
        d_state, expand, backend: the mixers' (core.mixers.mamba.Mamba).
        scan: a scan mode or Scan; layer i walks scan.layer(i). scan_parameters: the mode's parameters.
        compat: see NormalisedBlock.
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
        patch_size: Side = 8,
        embed_dim: Size = 384,
        depths: tuple[Depth, ...] = (10, 14),
        d_state: Size = 16,
        expand: Positive = 2,
        scan: str | Scan = "mamba_nd",
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
        self.patch_embed = nn.Sequential()
        self.patch_embed.add_module(
            "projection", PatchConvolution(in_chans, embed_dim, patch_size, patch_size, **factory)
        )
        self.patch_embed.add_module("last", ChannelsLast())
        tokens = -(-img_size[0] // patch_size) * -(-img_size[1] // patch_size)
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, embed_dim, **factory))
        self.scan = get_scan(scan, **(scan_parameters or {})) if isinstance(scan, str) else scan
        mixing = {"d_state": d_state, "expand": expand, "axes": 2, "backend": backend, **factory}

        def block(stage: int, number: int, drop_path: nn.Module) -> nn.Module:
            mixer = Mamba(embed_dim, scan=self.scan.layer(number), **mixing)
            return NormalisedBlock(embed_dim, mixer, drop_path, compat, **factory)

        widths = [embed_dim] * len(depths)
        self.layers = make_stages(depths, widths, block, UnfoldedMerging, drop_path_rate, factory)
        self.ln1 = nn.LayerNorm(embed_dim, eps=1e-6, **factory)
        self.ln2 = nn.LayerNorm(embed_dim, eps=1e-6, **factory)
        self.head_drop = nn.Dropout(drop_rate)
        self._finish(img_size, widths, patch_size, num_classes, global_pool)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The mean over the map, normalised once more, and, unless `pre_logits`, its class scores."""
        if self.global_pool == "avg":
            x = normalised(self.ln2, x.mean((1, 2)))
        x = self.head_drop(x)
        return x if pre_logits else self.head(x)


PREFIXES = ((r"^backbone\.", ""), (r"^head\.fc\.", "head."))
MERGED = r"^layers\.(\d+)\.down_sample_layer\."


def checkpoint_filter_fn(state_dict: Mapping, model: MambaND) -> dict[str, Tensor]:
    """A saved state dict as the model can load it: unwrapped, layers counted by stage, positions resampled to the model's."""
    state = with_names(strip_wrapping(state_dict), PREFIXES)
    places = [(stage, block) for stage, each in enumerate(model.layers) for block in range(len(each.blocks))]
    if not any(".blocks." in name for name in state):

        def moved(found: re.Match) -> str:
            stage, block = places[int(found[1])]
            return f"layers.{stage}.downsample." if found[2] else f"layers.{stage}.blocks.{block}."

        pattern = re.compile(r"^layers\.(\d+)\.(down_sample_layer\.)?")
        state = {pattern.sub(moved, name): value for name, value in state.items()}
    fit_saved_positions(state, model.grid)
    return state


@checked(group="model")
def build(
    describe: dict,
    scan: str | Scan = "mamba_nd",
    size: Literal["micro", "small"] | None = None,
    patch_size: Side | None = None,
    d_state: Size = 16,
    drop_path_rate: Rate = 0.0,
    compat: Literal["published"] | None = None,
    backend: Literal["auto", "cpu", "gpu", "reference"] = "auto",
) -> MambaND:
    """A Mamba-ND for a data set.

    Args:
        describe: the data set's own description: channels, image_size (height, width), num_classes, model_size.
        scan: the scan of its layers.
        size: a size of SIZES; None: what the data set asks for ("tiny": small).
        patch_size: pixels; None: 8, or fewer where fewer than 4 tokens a side were left.
    """
    image_size = tuple(describe["image_size"])
    patch_size = (
        next((each for each in (8, 4, 2) if min(image_size) >= 4 * each), 1) if patch_size is None else patch_size
    )
    return MambaND(
        image_size, describe["channels"], describe["num_classes"], patch_size=patch_size, scan=scan, d_state=d_state,
        drop_path_rate=drop_path_rate, compat=compat, backend=backend,
        **size_for(describe, size, {**SIZES, "tiny": SIZES["small"]}),
    )  # fmt: skip


register(
    MambaND,
    {
        "mamband_micro": Variant("A small Mamba-ND.", {**SIZES["micro"], "patch_size": 4}, more={"input_size": (3, 32, 32)}),
        "mamband_small_patch8": Variant(
            "Mamba-ND-S/8: 24.5 million parameters, ImageNet-1k 81.7%.", {**SIZES["small"], "compat": "published"}
        ),
    },
    checkpoint_filter_fn, (0, 1), first_conv="patch_embed.projection", classifier="head",
    origin_url="https://github.com/jacklishufan/Mamba-ND", paper_ids="arXiv:2402.05892",
)  # fmt: skip
