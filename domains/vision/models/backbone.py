"""What all image models here promise timm, and what the hierarchical ones share: stages of blocks on grids that get coarser."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from timm.layers import DropPath, resample_abs_pos_embed, trunc_normal_
from timm.models._features import feature_take_indices
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ....core.errors import UserError
from ....core.grid_blocks import count_flops
from ....core.linear import normalised
from ....core.mixers.mixer import PathMixer
from ....core.scans import Grid, Scan
from .position import grid_of

UNDECAYED = ("pos_embed", "temporal_pos", "cls_token", "A_", "D_", "direction_Bs", "dt_projs_bias")


class Backbone(nn.Module):
    """An image classifier that is one of timm's models."""

    grad_checkpointing = False
    # Whether timm's option dynamic_img_size says nothing: it is so in any case.
    takes_any_size = False

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, height, width) to class scores (batch, num_classes)."""
        return self.forward_head(self.forward_features(x))

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute the layers again in the backward pass instead of keeping what it needs."""
        self.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that weight decay would harm: positions, class tokens, decays, skips, steps."""
        last = {name: name.rpartition(".")[2] for name, _ in self.named_parameters()}
        return {name for name, end in last.items() if end.startswith(UNDECAYED) or end in ("D", "Ds")}


class Stage(nn.Module):
    """Blocks on one grid, then what makes it coarser.

    Args:
        blocks: each (batch, height, width, channels) to the same.
        downsample: to the next stage's grid and channels; None: nothing follows.
    """

    def __init__(self, blocks: Sequence[nn.Module], downsample: nn.Module | None = None):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = nn.Identity() if downsample is None else downsample

    def forward(self, x: Tensor, checkpointing: bool = False) -> Tensor:
        """The map, (batch, height, width, channels), through the blocks."""
        for block in self.blocks:
            again = checkpointing and torch.is_grad_enabled()
            x = checkpoint(block, x, use_reentrant=False) if again else block(x)
        return x

    def walked(self, grid: Grid) -> Grid:
        """The grid that its scans walk, of a map on this one."""
        return grid


class Hierarchical(Backbone):
    """A backbone of stages, for images of any size. Maps of tokens are (batch, height, width, channels).

    A subclass makes `patch_embed`, the stages, the last norm, `head_drop` and, where it learns positions, `pos_embed`, (1,
    tokens of the first map, channels); it then calls `_finish`, which makes the head.
    """

    # The names under which checkpoints have the stages, the norm of the last map and the head.
    stages_name, norm_name, head_name = "layers", "norm", "head"
    takes_any_size = True
    img_size: tuple[int, int]
    reductions: tuple[int, ...]
    widths: tuple[int, ...]

    @property
    def stages(self) -> nn.ModuleList:
        """Its stages."""
        return getattr(self, self.stages_name)

    @property
    def grids(self) -> tuple[Grid, ...]:
        """The tokens of each stage, for images of `img_size`; an image's last rows and columns count as whole tokens."""
        return tuple(grids_of(self.img_size, self.reductions))

    @property
    def walks(self) -> list[tuple[Scan, Grid]]:
        """Which scan walks which grid in each stage that has one: that of its first mixer."""
        found, scan = [], getattr(self, "scan", None)
        # One whose layers walk different paths is drawn whole.
        layers = [] if scan is None else [scan.layer(number) for number in range(scan.layers)]
        for stage, grid in zip(self.stages, self.grids, strict=False):
            mixer = next((module for module in stage.modules() if isinstance(module, PathMixer)), None)
            if mixer is not None:
                found.append((scan if mixer.scan in layers else mixer.scan, stage.walked(grid)))
        return found

    @property
    def grid(self) -> Grid:
        """The first stage's."""
        return self.grids[0]

    @property
    def tokens(self) -> int:
        """Tokens of the first stage."""
        return self.grid.length

    def final_norm(self, x: Tensor) -> Tensor:
        """The last stage's map, normalised."""
        return normalised(self.get_submodule(self.norm_name), x)

    def get_classifier(self) -> nn.Module:
        """The head."""
        return self.get_submodule(self.head_name)

    def _finish(
        self, img_size: tuple[int, int], widths: Sequence[int], stride: int, num_classes: int, global_pool: str
    ) -> None:
        self.img_size, self.widths = img_size, tuple(widths)
        self.reductions = tuple(stride * 2**stage for stage in range(len(widths)))
        self.num_features = self.head_hidden_size = widths[-1]
        self.feature_info = [
            {"module": f"{self.stages_name}.{stage}.blocks", "num_chs": width, "reduction": reduction}
            for stage, (width, reduction) in enumerate(zip(self.widths, self.reductions, strict=True))
        ]
        for scan, grid in self.walks:
            scan.order(grid)  # what a scan has to say of such a grid is said now, not in training
        self.reset_classifier(num_classes, global_pool)
        if hasattr(self, "pos_embed"):
            trunc_normal_(self.pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear) and not getattr(module.bias, "_no_reinit", False):
                trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward_features(self, x: Tensor) -> Tensor:
        """(batch, channels, height, width) to the last stage's map, normalised, (batch, rows, columns, channels)."""
        return self.final_norm(self._through(x, len(self.stages))[0])

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The mean over the map and, unless `pre_logits`, its class scores: (batch, channels or num_classes)."""
        if self.global_pool == "avg":
            x = x.mean((1, 2))
        x = self.head_drop(x)
        return x if pre_logits else self.get_classifier()(x)

    def forward_intermediates(
        self, x: Tensor, indices: int | Sequence[int] | None = None, norm: bool = False, stop_early: bool = False,
        output_fmt: str = "NCHW", intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:  # fmt: skip
        """The maps behind the blocks of some of the stages.

        Args:
            x: (batch, channels, height, width).
            indices: stages, or how many of the last ones; None: all.
            norm: apply the final norm to the last stage's.
            stop_early: do not run the stages after the last one wanted.
            output_fmt: "NCHW" (batch, channels, rows, columns) or "NHWC".
            intermediates_only: leave out what forward_features would return.
        """
        if output_fmt not in ("NCHW", "NHWC"):
            raise UserError("unknown output_fmt", given=output_fmt, allowed=("NCHW", "NHWC"))
        take, last = feature_take_indices(len(self.stages), indices)
        stages = last + 1 if stop_early else len(self.stages)
        x, maps = self._through(x, stages)
        found = []
        for index in take:
            each = self.final_norm(maps[index]) if norm and index == len(self.widths) - 1 else maps[index]
            found.append(each.permute(0, 3, 1, 2).contiguous() if output_fmt == "NCHW" else each)
        if intermediates_only:
            return found
        return (self.final_norm(x) if stages == len(self.widths) else x), found

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop the stages after the last of `indices`, and the head where asked; the absolute indices.

        The final norm has the last stage's width and is of no use to any other.
        """
        take, last = feature_take_indices(len(self.stages), indices)
        setattr(self, self.stages_name, self.stages[: last + 1])
        if prune_norm or last + 1 < len(self.widths):
            self.set_submodule(self.norm_name, nn.Identity())
        if prune_head:
            self.reset_classifier(0, "")
        return take

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a new head (0 classes: none) and, where given, another pooling in place."""
        pool = self.global_pool if global_pool is None else global_pool
        if pool not in ("avg", ""):
            raise UserError("unknown global_pool", given=pool, allowed=("avg", ""))
        self.num_classes, self.global_pool = num_classes, pool
        like, head = next(self.parameters()), nn.Identity()
        if num_classes:
            head = nn.Linear(self.num_features, num_classes, device=like.device, dtype=like.dtype)
            trunc_normal_(head.weight, std=0.02)
            nn.init.zeros_(head.bias)
        self.set_submodule(self.head_name, head)

    def group_matcher(self, coarse: bool = False) -> dict:
        """Which layer a parameter belongs to, for learning rates by depth."""
        name = self.stages_name
        parts = [
            (rf"^{name}\.(\d+)\.blocks\.(\d+)", None),
            (rf"^{name}\.(\d+)\.downsample", (0,)),
            (r"^norm|^ln|^classifier", (99999,)),
        ]
        return {"stem": r"^patch_embed|pos_embed", "blocks": rf"^{name}\.(\d+)" if coarse else parts}

    def flops(self, batch: int = 1) -> int:
        """Floating point operations of a forward pass (a multiply-add is two; a scan counts 9 a step, channel and state)."""
        total = count_flops(self.patch_embed, self.img_size)[0]
        for stage, grid in zip(self.stages, self.grids, strict=False):
            total += count_flops(stage, grid.sizes)[0]
        return batch * (total + 2 * self.num_features * self.num_classes)

    def _through(self, x: Tensor, stages: int) -> tuple[Tensor, list[Tensor]]:
        """The map behind so many stages, not made coarser behind the last of them, and those behind the blocks of each."""
        x, maps = self._embed(x), []
        for number, stage in enumerate(self.stages[:stages]):
            x = self.stages[number - 1].downsample(x) if number else x
            x = stage(x, self.grad_checkpointing)
            maps.append(x)
        return x, maps

    def _embed(self, x: Tensor) -> Tensor:
        """(batch, channels, height, width) to the first map."""
        x = self.patch_embed(x)
        return x + fitting_positions(self.pos_embed, self.grid.sizes, x.shape[1:3]) if hasattr(self, "pos_embed") else x


def make_stages(
    depths: Sequence[int],
    widths: Sequence[int],
    block: Callable[[int, int, nn.Module], nn.Module],
    downsample: Callable[..., nn.Module],
    drop_path_rate: float,
    factory: Mapping[str, Any],
) -> nn.ModuleList:
    """The stages of a hierarchical backbone.

    Args:
        depths, widths: blocks and channels of each stage.
        block: makes a block from its stage, its number among all blocks, and its stochastic depth.
        downsample: makes what stands between two stages from their channels and `factory`, the device and dtype.
        drop_path_rate: of the last block; it rises linearly from none at the first.
    """
    dropped, stages = drop_paths(drop_path_rate, sum(depths)), nn.ModuleList()
    for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
        first, last = sum(depths[:stage]), stage + 1 == len(depths)
        blocks = [block(stage, number, dropped[number]) for number in range(first, first + depth)]
        stages.append(Stage(blocks, None if last else downsample(width, widths[stage + 1], **factory)))
    return stages


def grids_of(img_size: tuple[int, int], reductions: Sequence[int]) -> list[Grid]:
    """The grid of tokens of so many pixels each way; the last row and column may stand for fewer."""
    return [Grid(tuple(-(-side // reduction) for side in img_size)) for reduction in reductions]


def both_sides(img_size: int | Sequence[int]) -> tuple[int, int]:
    """(height, width) of images of that side, or of those two."""
    return (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)


def suitable_stride(image_size: Sequence[int]) -> int:
    """Pixels of a token of the first stage: 4, or 2 or 1 where images are so small that fewer than 4 tokens a side were left."""
    return next((stride for stride in (4, 2) if min(image_size) >= 4 * stride), 1)


def drop_paths(rate: float, depth: int) -> list[nn.Module]:
    """Stochastic depth that rises linearly over the blocks, from none at the first."""
    rates = torch.linspace(0, rate, depth, device="cpu").tolist()
    return [DropPath(each) if each else nn.Identity() for each in rates]


def size_for(describe: Mapping[str, Any], size: str | None, sizes: Mapping[str, Mapping]) -> dict[str, Any]:
    """The arguments of the size that was asked for, else of the one that the data set asks for."""
    size = describe.get("model_size", "tiny") if size is None else size
    if size not in sizes:
        raise UserError("there is no such model size", given=f"model.size={size}", allowed=list(sizes))
    return dict(sizes[size])


def fitting_positions(embedding: Tensor, made_for: Sequence[int], sizes: Sequence[int]) -> Tensor:
    """Position embeddings (1, rows * columns, channels), resampled where the map has other sizes: (1, *sizes, channels)."""
    if tuple(made_for) != tuple(sizes):
        embedding = resample_abs_pos_embed(embedding, list(sizes), list(made_for), num_prefix_tokens=0)
    return embedding.unflatten(1, tuple(sizes))


def with_names(state: Mapping[str, Tensor], rules: Sequence[tuple[str, str]]) -> dict[str, Tensor]:
    """A state dict under other names: each rule, a pattern and what stands in its place, is applied to every name in turn."""
    for old, new in rules:
        state = {re.sub(old, new, name): value for name, value in state.items()}
    return dict(state)


def fit_saved_positions(state: dict[str, Tensor], grid: Grid) -> None:
    """Resample saved position embeddings, of a square grid or one of the same proportions, to this grid."""
    saved = state.get("pos_embed")
    if saved is not None and saved.shape[1] != grid.tokens:
        made_for = grid_of(saved.shape[1], grid)
        state["pos_embed"] = fitting_positions(saved, made_for, grid.sizes).flatten(1, 2)
