"""LocalVim (arXiv 2403.09338): a plain stack whose layers walk along four directions of their own, with rotary positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ....core.grid_blocks import GridBlock
from ....core.initialisation import scale_output_projections
from ....core.ranges import Count, Depth, Rate, Side, Size, checked
from ....core.scans import Scan
from .backbone import Hierarchical, Stage, both_sides, drop_paths, fit_saved_positions, size_for, with_names
from .localmamba import LocalMixer, scans_of, searched_directions
from .patches import suitable_patch_size
from .position import strip_wrapping
from .registration import Variant, register
from .stems import ChannelsLast, PatchConvolution

SIZES = {
    "micro": {"embed_dim": 48, "depth": 3, "d_state": 8},
    "tiny": {"embed_dim": 192, "depth": 20},
    "small": {"embed_dim": 384, "depth": 20},
}


ROWS = 14  # of the grid that rotary positions are counted for; others are stretched to it


class RotatedBlock(GridBlock):
    """Turns the stream by its tokens' positions, then adds what the mixer says of the normalised tokens."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(rotated(x, ROWS))


class LocalVim(Hierarchical):
    """LocalVim: one stage.

    Args:
        img_size: side of the images, or (height, width), that its positions are learned for; others have them resampled.
        in_chans, num_classes, global_pool: as of VMamba.
        patch_size: pixels of a token each way; None: what suits the image size.
        embed_dim, depth: width and number of layers.
        d_state, backend: the mixers'.
        scan: a scan mode or Scan, for what is not said by `directions`.
        directions: for each layer the names of its directions (localmamba.DIRECTIONS), as the search found them.
        compat: "published": grids are filled up to whole windows, and columns undone as published; None: cut at the border.
        drop_rate: dropout before the head. drop_path_rate: stochastic depth, rising linearly over the layers.
    """

    norm_name = "norm_f"

    @checked
    def __init__(
        self,
        img_size: Side | tuple[Side, Side] = 224,
        in_chans: Size = 3,
        num_classes: Count = 1000,
        global_pool: str = "avg",
        patch_size: Side | None = 16,
        embed_dim: Size = 192,
        depth: Depth = 20,
        d_state: Size = 16,
        scan: str | Scan = "local_vim",
        directions: Sequence[Sequence[str]] | None = None,
        compat: Literal["published"] | None = None,
        drop_rate: Rate = 0.0,
        drop_path_rate: Rate = 0.0,
        backend: str = "auto",
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        factory, img_size = {"device": device, "dtype": dtype}, both_sides(img_size)
        patch_size = suitable_patch_size(img_size) if patch_size is None else patch_size
        self.patch_embed = nn.Sequential()
        self.patch_embed.add_module("proj", PatchConvolution(in_chans, embed_dim, patch_size, patch_size, **factory))
        self.patch_embed.add_module("last", ChannelsLast())
        tokens = -(-img_size[0] // patch_size) * -(-img_size[1] // patch_size)
        self.pos_embed, layers = nn.Parameter(torch.zeros(1, tokens, embed_dim, **factory)), []
        scans = scans_of(directions, scan, depth)
        self.scan = scans[0]
        for walked, drop_path in zip(scans, drop_paths(drop_path_rate, depth), strict=True):
            padded = compat == "published"
            mixer = LocalMixer(embed_dim, d_state=d_state, scan=walked, padded=padded, backend=backend, **factory)
            layers.append(RotatedBlock(nn.RMSNorm(embed_dim, 1e-5, **factory), mixer, drop_path=drop_path))
        self.layers = nn.ModuleList([Stage(layers)])
        self.norm_f = nn.RMSNorm(embed_dim, 1e-5, **factory)
        self.head_drop = nn.Dropout(drop_rate)
        self._finish(img_size, [embed_dim], patch_size, num_classes, global_pool)
        scale_output_projections(self.layers, depth)


def rotated(x: Tensor, side: int | None = None) -> Tensor:
    """Rotary embedding of the stream: pairs of neighbouring channels turned, the first half by row, the second by column.

    Args:
        x: (batch, rows, columns, channels), channels a multiple of 4.
        side: rows and columns are counted as if there were so many; None: as they are.
    """
    half = x.shape[-1] // 2
    rate = 10000.0 ** (-torch.arange(0, half, 2, device=x.device, dtype=torch.float32) / half)
    counted = (
        torch.arange(size, device=x.device, dtype=torch.float32) * ((side or size) / max(size, 1))
        for size in x.shape[1:3]
    )
    rows, columns = (each[:, None] * rate for each in counted)
    rows, columns = rows[:, None].expand(-1, x.shape[2], -1), columns[None].expand(x.shape[1], -1, -1)
    angle = torch.cat([rows, columns], -1)
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    first, second = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([first * cos - second * sin, second * cos + first * sin], -1).flatten(-2)


def checkpoint_filter_fn(state_dict: Mapping, model: LocalVim) -> dict[str, Tensor]:
    """A saved state dict as the model can load it: unwrapped, under its names, positions resampled to the model's."""
    rules = (
        (r"^layers\.(\d+)\.mixer\.", r"layers.\1.op."), (r"\.([AD])(_log)?_(\d+)$", r".\1_\3\2"),
        (r"^layers\.(\d+)\.(?!blocks)", r"layers.0.blocks.\1."),
    )  # fmt: skip
    state = {name: value for name, value in strip_wrapping(state_dict).items() if not name.startswith("rope.")}
    state = with_names(state, rules)
    fit_saved_positions(state, model.grid)
    return state


@checked(group="model")
def build(
    describe: dict,
    scan: str | Scan = "local_vim",
    size: Literal["micro", "tiny", "small"] | None = None,
    patch_size: Side | None = None,
    d_state: Size | None = None,
    drop_path_rate: Rate = 0.0,
    directions: list | Literal["searched"] | None = None,
    backend: Literal["auto", "cpu", "gpu", "reference"] = "auto",
) -> LocalVim:
    """A LocalVim for a data set.

    Args:
        describe: the data set's own description: channels, image_size (height, width), num_classes, model_size.
        scan, directions: of its layers (LocalVim); "searched": those that the authors' search found for the size.
        size: a size of SIZES; None: what the data set asks for.
        patch_size: pixels; None: what suits the image size.
    """
    chosen = size_for(describe, size, SIZES) | ({} if d_state is None else {"d_state": d_state})
    if directions == "searched":
        directions = searched_directions("localvim", (chosen["embed_dim"], chosen["depth"]))
    return LocalVim(
        tuple(describe["image_size"]), describe["channels"], describe["num_classes"], patch_size=patch_size, scan=scan,
        drop_path_rate=drop_path_rate, directions=directions, backend=backend, **chosen,
    )  # fmt: skip


register(
    LocalVim,
    {
        "localvim_micro": Variant(
            "A small LocalVim.", {**SIZES["micro"], "patch_size": None}, more={"input_size": (3, 32, 32)}
        ),
        "localvim_tiny": Variant(
            "LocalVim-T: 8.0 million parameters, ImageNet-1k 76.2%.",
            {**SIZES["tiny"], "compat": "published", "directions": searched_directions("localvim", (192, 20))},
        ),
        "localvim_small": Variant(
            "LocalVim-S: 27.8 million parameters, ImageNet-1k 81.1%.", {**SIZES["small"], "compat": "published"}
        ),
    },
    checkpoint_filter_fn, 1, first_conv="patch_embed.proj", classifier="head", license="apache-2.0",
    origin_url="https://github.com/hunto/LocalMamba", paper_ids="arXiv:2403.09338",
)  # fmt: skip
