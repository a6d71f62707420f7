"""Vision Mamba (Vim, arXiv 2401.09417): a plain stack of Mamba layers over image patches, with a class token in the middle.

Structure and parameter names are those of the published checkpoints; `scan` changes the paths the layers walk.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from timm.layers import DropPath, resample_patch_embed, trunc_normal_
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from ....core.errors import UserError, check_choice
from ....core.initialisation import scale_output_projections
from ....core.mixers.extra_tokens import with_extra, without_extra
from ....core.mixers.mamba import Mamba
from ....core.mixers.path_parameters import check_path_parameters
from ....core.ranges import Count, Depth, Positive, Rate, Side, Size, checked
from ....core.scans import Grid, Scan
from ....core.scans import get as get_scan
from ....core.stack import ResidualBlock, final_norm, make_norm, normalised, run_stack
from .backbone import Backbone
from .patches import PatchEmbed, suitable_patch_size
from .position import fit_position_embedding, strip_wrapping

SIZES = {
    "micro": {
        "embed_dim": 64,
        "depth": 4,
        "class_token": "none",
    },  # with 16 tokens their mean learns faster than one more
    "tiny": {"embed_dim": 192, "depth": 24},
    "small": {"embed_dim": 384, "depth": 24},
    "base": {"embed_dim": 768, "depth": 24},
}
POOLS = ("token", "avg", "")


class Vim(Backbone):
    """Vision Mamba.

    Args:
        img_size: side of the images in pixels, or (height, width).
        patch_size: side of a patch; None: what suits the image size. stride: pixels between patches; None: the patch size.
        in_chans, num_classes: channels of the images; outputs of the head (0: no head).
        global_pool: what the head reads: "token" (the class tokens' mean), "avg" (the patches' mean), "" (all tokens);
            None: "token" where there is one.
        embed_dim, depth: width and number of layers.
        d_state, d_conv, expand, conv, parameters, backend: the mixers' (core.mixers.mamba.Mamba). parameters="decay" is
            the paper's first bidirectional layer ("v1"), "separate" the published one ("v2").
        scan: a scan mode or Scan; layer i walks scan.layer(i). scan_parameters: the mode's parameters.
        class_token: "middle", "front", "end", "double" (one at each end) or "none".
        divide: take the mean over the paths instead of the sum. Without effect for v1 and for scans that share the tokens out.
        norm: "rms" or "layer". residual_in_fp32: keep the residual stream in float32 at least.
        drop_rate, pos_drop_rate: dropout before the head and after the position embedding.
        drop_path_rate: stochastic depth, rising linearly over the layers.
        dynamic_img_size: take images of any size, for which positions are resampled and the class token is put in its place.
    """

    @checked
    def __init__(
        self,
        img_size: Side | tuple[Side, Side] = 224,
        patch_size: Side | None = 16,
        stride: Side | None = None,
        in_chans: Size = 3,
        num_classes: Count = 1000,
        global_pool: str | None = None,
        embed_dim: Size = 192,
        depth: Depth = 24,
        d_state: Size = 16,
        d_conv: Size | None = None,
        expand: Positive = 2,
        conv: str = "path",
        parameters: str = "separate",
        scan: str | Scan = "bidirectional",
        scan_parameters: dict | None = None,
        class_token: str = "middle",
        divide: bool = True,
        norm: str = "rms",
        residual_in_fp32: bool = True,
        drop_rate: Rate = 0.0,
        pos_drop_rate: Rate = 0.0,
        drop_path_rate: Rate = 0.0,
        dynamic_img_size: bool = False,
        backend: str = "auto",
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        factory = {"device": device, "dtype": dtype}
        image_size = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
        patch_size = suitable_patch_size(image_size) if patch_size is None else patch_size
        self.patch_embed = self._patch_embed(
            image_size, patch_size, stride, in_chans, embed_dim, dynamic=dynamic_img_size, **factory
        )
        self.grid = Grid.with_class_token(self.patch_embed.grid_size, class_token)
        self.class_token = class_token
        for name in self._class_token_names():
            setattr(self, name, nn.Parameter(torch.zeros(1, 1, embed_dim, **factory)))
        positions = math.prod(self.grid.sizes[-2:]) + len(self.grid.extra)
        self.pos_embed = nn.Parameter(torch.zeros(1, positions, embed_dim, **factory))
        self.pos_drop = nn.Dropout(pos_drop_rate)

        self.scan = get_scan(scan, **(scan_parameters or {})) if isinstance(scan, str) else scan
        mixing = {"d_state": d_state, "d_conv": d_conv, "expand": expand, "conv": conv, "parameters": parameters}
        mixing |= {"merge": self._merge(parameters, divide), "axes": self.grid.ndim, "backend": backend, **factory}
        # A layer's rate applies to what the layer before it said, so the first has none and the last goes to norm_f.
        rates = [0.0, *torch.linspace(0, drop_path_rate, depth, device="cpu").tolist()]
        self.layers = nn.ModuleList()
        for index in range(depth):
            walked = self._scan_of(index)
            walked.order(self.grid)  # a scan that cannot walk this grid says so now, not in training
            mixer, before = self._mixer(embed_dim, walked, mixing), make_norm(norm, embed_dim, **factory)
            drop_path = DropPath(rates[index]) if rates[index] else None
            self.layers.append(ResidualBlock(mixer, before, drop_path=drop_path, residual_in_fp32=residual_in_fp32))
        self.norm_f = make_norm(norm, embed_dim, **factory)
        self.drop_path = DropPath(rates[-1]) if rates[-1] else nn.Identity()
        self.head_drop = nn.Dropout(drop_rate)

        self.img_size = image_size
        self.num_features = self.head_hidden_size = self.embed_dim = embed_dim
        self.feature_info = [
            {"module": f"layers.{index}", "num_chs": embed_dim, "reduction": self.patch_embed.stride}
            for index in range(depth)
        ]
        self.reset_classifier(
            num_classes, ("token" if self.grid.extra else "avg") if global_pool is None else global_pool
        )
        self._init_weights()

    @property
    def tokens(self) -> int:
        """Tokens of an image, class tokens included."""
        return self.grid.length

    @property
    def grids(self) -> tuple[Grid, ...]:
        """The tokens of its one stage."""
        return (self.grid,)

    def grid_of(self, x: Tensor) -> Grid:
        """The tokens of images (batch, channels, height, width), class tokens included."""
        sizes = (*self.grid.sizes[:-2], *self.patch_embed.grid_of(x.shape[-2:]))
        return self.grid if sizes == self.grid.sizes else Grid.with_class_token(sizes, self.class_token)

    @property
    def answering(self) -> list[int]:
        """The tokens that the head reads: the class tokens, or all patches."""
        extra = list(self.grid.extra)
        return extra if self.global_pool == "token" else [each for each in range(self.tokens) if each not in extra]

    def flops(self, batch: int = 1) -> int:
        """Floating point operations of a forward pass (a multiply-add is two; a scan counts 9 a step, channel and state)."""
        projection = self.patch_embed.proj
        patches = 2 * self.patch_embed.num_patches * projection.weight.numel()
        head = 2 * self.num_features * self.num_classes
        return batch * (patches + sum(layer.mixer.flops(self.grid) for layer in self.layers) + head)

    def forward_features(self, x: Tensor) -> Tensor:
        """(batch, channels, height, width) to normalised tokens (batch, tokens, embed_dim), class tokens among them."""
        result = run_stack(self.layers, self._embed(x), self.grid_of(x), checkpointing=self.grad_checkpointing)
        return final_norm(result, self.norm_f, self.drop_path)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Pool the tokens of forward_features and, unless `pre_logits`, classify: (batch, embed_dim or num_classes)."""
        extra = Grid.with_class_token((x.shape[1] - len(self.grid.extra),), self.class_token).extra
        if self.global_pool == "token":
            x = x[:, extra[0]] if len(extra) == 1 else x[:, list(extra)].mean(1)
        elif self.global_pool == "avg":
            x = without_extra(x, extra).mean(1)
        x = self.head_drop(x)
        return x if pre_logits else self.head(x)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
        return_prefix_tokens: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """What the residual stream holds after some of the layers.

        Args:
            x: (batch, channels, height, width).
            indices: layers, or how many of the last ones; None: all.
            norm: apply the final norm to each.
            stop_early: do not run the layers after the last one wanted.
            output_fmt: "NCHW" (batch, embed_dim, rows, columns) or "NLC" (batch, rows * columns, embed_dim).
            intermediates_only: leave out what forward_features would return.
            return_prefix_tokens: each as (patches, class tokens (batch, class tokens, embed_dim)).
        """
        if output_fmt not in ("NCHW", "NLC"):
            raise UserError("unknown output_fmt", given=output_fmt, allowed=("NCHW", "NLC"))
        take, last = feature_take_indices(len(self.layers), indices)
        layers = self.layers[: last + 1] if stop_early else self.layers
        grid = self.grid_of(x)
        result = run_stack(layers, self._embed(x), grid, checkpointing=self.grad_checkpointing, take=set(take))
        found = []
        for index in take:
            stream = normalised(self.norm_f, result.taken[index]) if norm else result.taken[index]
            patches = without_extra(stream, grid.extra)
            if output_fmt == "NCHW":
                patches = patches.unflatten(1, grid.sizes).movedim(-1, 1).contiguous()
            found.append((patches, stream[:, list(grid.extra)]) if return_prefix_tokens else patches)
        return found if intermediates_only else (final_norm(result, self.norm_f, self.drop_path), found)

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop the layers after the last of `indices`, and the final norm and head where asked; the absolute indices."""
        take, last = feature_take_indices(len(self.layers), indices)
        self.layers = self.layers[: last + 1]
        if prune_norm:
            self.norm_f = nn.Identity()
        if prune_head:
            self.reset_classifier(0, "")
        return take

    def get_classifier(self) -> nn.Module:
        """The head."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a new head (0 classes: none) and, where given, another pooling in place."""
        pool = self.global_pool if global_pool is None else global_pool
        allowed = POOLS if self.grid.extra else POOLS[1:]
        if pool not in allowed:
            raise UserError(
                f"unknown global_pool {pool!r} for class_token={self.class_token}", given=pool, allowed=allowed
            )
        self.num_classes, self.global_pool = num_classes, pool
        like = self.pos_embed
        self.head = nn.Identity()
        if num_classes:
            self.head = nn.Linear(self.num_features, num_classes, device=like.device, dtype=like.dtype)
            trunc_normal_(self.head.weight, std=0.02)
            nn.init.zeros_(self.head.bias)

    def group_matcher(self, coarse: bool = False) -> dict:
        """Which layer a parameter belongs to, for learning rates by depth."""
        return {
            "stem": r"^cls_token|pos_embed|patch_embed",
            "blocks": [(r"^layers\.(\d+)", None), (r"^norm_f", (99999,))],
        }

    def load_state_dict(self, state_dict, strict: bool = True, assign: bool = False):
        """As for every module; a checkpoint trained with another scan's parameters is named as such (UserError)."""
        if strict:
            check_path_parameters(self, state_dict)
        return super().load_state_dict(state_dict, strict, assign)

    # What cuts the images into patches, called as PatchEmbed.
    _patch_embed = PatchEmbed

    def _scan_of(self, layer: int) -> Scan:
        return self.scan.layer(layer)

    @staticmethod
    def _mixer(channels: int, scan: Scan, options: dict) -> Mamba:
        return Mamba(channels, scan=scan, **options)

    def _merge(self, parameters: str, divide: bool) -> str:
        return "mean" if divide and parameters != "decay" and not self.scan.disjoint(self.grid.ndim) else "sum"

    def _class_token_names(self) -> tuple[str, ...]:
        return {0: (), 1: ("cls_token",), 2: ("cls_token_head", "cls_token_tail")}[len(self.grid.extra)]

    def _embed(self, x: Tensor) -> Tensor:
        grid, x = self.grid_of(x), self.patch_embed(x)
        if grid.extra:
            names = self._class_token_names()
            tokens = torch.cat([getattr(self, name) for name in names], 1) if len(names) > 1 else self.cls_token
            x = with_extra(x, tokens.expand(x.shape[0], -1, -1), grid.extra)
        return self.pos_drop(x + self._positions(grid))

    def _positions(self, grid: Grid) -> Tensor:
        """The position embeddings of a grid in space, (1, tokens, embed_dim), class tokens' among them."""
        made_for = self.grid.sizes[-2:]
        return fit_position_embedding(self.pos_embed, len(grid.extra), self.class_token, grid, made_for)

    @torch.no_grad()
    def _init_weights(self) -> None:
        nn.init.trunc_normal_(self.patch_embed.proj.weight, std=(self.patch_embed.proj.weight[0].numel()) ** -0.5)
        nn.init.zeros_(self.patch_embed.proj.bias)
        for name in ("pos_embed", *self._class_token_names()):
            trunc_normal_(getattr(self, name), std=0.02)
        scale_output_projections(self, len(self.layers))


def checkpoint_filter_fn(state_dict: dict, model: Vim) -> dict[str, Tensor]:
    """A saved state dict as the model can load it: unwrapped, patches and positions resampled to the model's."""
    state = dict(strip_wrapping(state_dict))
    tokens = [name for name in ("cls_token", "cls_token_head", "cls_token_tail") if name in state]
    patches, kernel = state.get("patch_embed.proj.weight"), model.patch_embed.patch_size
    if patches is not None and patches.shape[-1] != kernel:
        state["patch_embed.proj.weight"] = resample_patch_embed(patches, [kernel, kernel])
    if "pos_embed" in state:
        state["pos_embed"] = fit_position_embedding(state["pos_embed"], len(tokens), model.class_token, model.grid)
    if not model.grid.extra:
        for name in tokens:
            del state[name]
    return state


@checked(group="model")
def build(
    describe: dict,
    scan: str | Scan = "bidirectional",
    size: Literal["micro", "tiny", "small", "base"] | None = None,
    patch_size: Side | None = None,
    stride: Side | None = None,
    class_token: Literal["middle", "front", "end", "double", "none"] | None = None,
    parameters: Literal["separate", "shared", "decay"] = "separate",
    divide: bool = True,
    drop_path_rate: Rate = 0.0,
    d_state: Size = 16,
    embed_dim: Size | None = None,
    depth: Depth | None = None,
    conv: Literal["path", "grid"] = "path",
    backend: Literal["auto", "cpu", "gpu", "reference"] = "auto",
) -> Vim:
    """A Vim for a data set.

    Args:
        describe: the data set's own description: channels, image_size (height, width), num_classes, model_size.
        scan: the scan of its layers.
        size: "micro", "tiny", "small", "base"; None: what the data set asks for.
        patch_size: pixels; None: what suits the image size.
        embed_dim, depth, class_token: other than the size's.

    Raises:
        UserError: an unknown size, a patch size that does not divide the images.
    """
    size = describe.get("model_size", "tiny") if size is None else size
    check_choice("model.size", size, SIZES, "model size")
    chosen = {"embed_dim": embed_dim, "depth": depth, "class_token": class_token}
    return Vim(
        tuple(describe["image_size"]), patch_size, stride, describe["channels"], describe["num_classes"],
        d_state=d_state, conv=conv, parameters=parameters, scan=scan, divide=divide, drop_path_rate=drop_path_rate,
        backend=backend, **{**SIZES[size], **{key: value for key, value in chosen.items() if value is not None}},
    )  # fmt: skip
