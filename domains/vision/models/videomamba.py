"""VideoMamba (arXiv 2403.06977): Vim's bidirectional layers over the tubes of a video, or the patches of an image.

A class token stands in front, what both directions say is summed, and each frame has learned positions in space and one in time.
Parameter names are those of its checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Literal

import torch
from timm.layers import trunc_normal_
from torch import Tensor, nn

from ....core.errors import UserError
from ....core.ranges import Rate, Side, Size, checked
from ....core.scans import Grid, Scan
from .backbone import size_for
from .patches import FEW_TOKENS, LARGEST_PATCH, PatchEmbed, fitting_patch_sizes
from .registration import Variant, register
from .vim import Vim
from .vim import checkpoint_filter_fn as vim_filter_fn

SIZES = {
    "micro": {"embed_dim": 64, "depth": 4},
    "tiny": {"embed_dim": 192, "depth": 24},
    "small": {"embed_dim": 384, "depth": 24},
    "middle": {"embed_dim": 576, "depth": 32},
    "base": {"embed_dim": 768, "depth": 24},
}


class TubeEmbed(PatchEmbed):
    """Projects tubes, patches of several frames, to tokens.

    Args:
        frames: of a video. tube: frames of a token.
        The others as of PatchEmbed.
    """

    def __init__(
        self, image_size: tuple[int, int], patch_size: int, stride: int | None, in_chans: int, embed_dim: int, device=None,
        dtype=None, dynamic: bool = False, *, frames: int, tube: int,
    ):  # fmt: skip
        super().__init__(
            image_size, patch_size, stride, in_chans, embed_dim, device=device, dtype=dtype, dynamic=dynamic
        )
        if frames % tube:
            raise UserError(
                "tubes do not fit the video", given=f"tube={tube}, frames={frames}", allowed="tubes that divide it"
            )
        sides, strides = (tube, patch_size, patch_size), (tube, self.stride, self.stride)
        self.frames, self.grid_size = frames, (frames // tube, *self.grid_size)
        self.num_patches = math.prod(self.grid_size)
        self.proj = nn.Conv3d(in_chans, embed_dim, sides, strides, device=device, dtype=dtype)

    def forward(self, video: Tensor) -> Tensor:
        """(batch, channels, frames, height, width) to (batch, frames / tube, rows * columns, embed_dim)."""
        other_size = not self.dynamic and tuple(video.shape[-2:]) != self.image_size
        if video.shape[-3] != self.frames or other_size:
            made_for = "x".join(map(str, (self.frames, *self.image_size)))
            raise UserError(f"the model was made for videos of {made_for}", given="x".join(map(str, video.shape[-3:])))
        return self.proj(self.fitted(video)).flatten(3).permute(0, 2, 3, 1)


class VideoMamba(Vim):
    """VideoMamba.

    Args:
        img_size, patch_size and the rest of `options`: as of Vim.
        frames: of a video, (batch, channels, frames, height, width); None: the model is one of images.
        tube: frames of a token.
        scan: of the layers; None: "spatial_first" for videos, "bidirectional" for images.
    """

    def __init__(
        self, img_size: Side | tuple[Side, Side] = 224, patch_size: Side | None = 16, *, frames: Size | None = None,
        tube: Size = 1, scan: str | Scan | None = None, device=None, dtype=None, **options,
    ):  # fmt: skip
        if frames is not None:
            self._patch_embed = partial(TubeEmbed, frames=frames, tube=tube)
        scan = ("bidirectional" if frames is None else "spatial_first") if scan is None else scan
        form = {"class_token": "front", "divide": False, "scan": scan, **options}
        super().__init__(img_size, patch_size, device=device, dtype=dtype, **form)
        if frames is not None:
            moments = torch.zeros(1, self.grid.sizes[0], self.embed_dim, device=device, dtype=dtype)
            self.temporal_pos_embedding = nn.Parameter(trunc_normal_(moments, std=0.02))

    def _embed(self, x: Tensor) -> Tensor:
        if not hasattr(self, "temporal_pos_embedding"):
            return super()._embed(x)
        positions = self._positions(Grid.with_class_token(self.grid_of(x).sizes[-2:], self.class_token))
        tubes = self.patch_embed(x) + positions[:, 1:] + self.temporal_pos_embedding[:, :, None]
        first = (self.cls_token + positions[:, :1]).expand(len(x), -1, -1)
        return self.pos_drop(torch.cat([first, tubes.flatten(1, 2)], 1))


def checkpoint_filter_fn(state_dict: Mapping, model: VideoMamba) -> dict[str, Tensor]:
    """A saved state dict as the model can load it; an image's patches become the middle frame of a tube, the others being zero."""
    if not hasattr(model, "temporal_pos_embedding"):
        return vim_filter_fn(state_dict, model)
    state = dict(state_dict.get("model", state_dict))
    patches, tubes = state["patch_embed.proj.weight"], model.patch_embed.proj.weight
    if patches.dim() == 4:
        inflated = torch.zeros(*patches.shape[:2], tubes.shape[2], *patches.shape[2:], dtype=patches.dtype)
        inflated[:, :, tubes.shape[2] // 2] = patches
        state["patch_embed.proj.weight"] = inflated
    state.setdefault("temporal_pos_embedding", model.temporal_pos_embedding.detach())
    return state


@checked(group="model")
def build(
    describe: dict,
    scan: str | Scan = "bidirectional",
    size: Literal["micro", "tiny", "small", "middle", "base"] | None = None,
    patch_size: Side | None = None,
    tube: Size = 1,
    d_state: Size = 16,
    drop_path_rate: Rate = 0.0,
    backend: Literal["auto", "cpu", "gpu", "reference"] = "auto",
) -> VideoMamba:
    """A VideoMamba for a data set.

    Args:
        describe: the data set's own description: channels, image_size (height, width), num_classes, model_size, and frames where it
            has videos.
        scan: the scan of its layers.
        size: a size of SIZES; None: what the data set asks for.
        patch_size: pixels; None: what suits the image size, and of videos the largest up to 16 that leaves 16 tokens a frame.
        tube: frames of a token, of videos.
    """
    if patch_size is None and describe.get("frames"):
        patch_size = _patch_of_frames(tuple(describe["image_size"]))
    return VideoMamba(
        tuple(describe["image_size"]), patch_size, frames=describe.get("frames"), tube=tube, in_chans=describe["channels"],
        num_classes=describe["num_classes"], scan=scan, d_state=d_state, drop_path_rate=drop_path_rate, backend=backend,
        **size_for(describe, size, SIZES),
    )  # fmt: skip


def _patch_of_frames(size: tuple[int, int]) -> int:
    fitting = fitting_patch_sizes(size)
    enough = [side for side in fitting if side <= LARGEST_PATCH and size[0] * size[1] >= FEW_TOKENS * side**2]
    return max(enough, default=fitting[0])


register(
    VideoMamba,
    {
        "videomamba_micro": Variant(
            "A small VideoMamba for images.", {**SIZES["micro"], "patch_size": None}, more={"input_size": (3, 32, 32)}
        ),
        "videomamba_tiny_patch16_224": Variant("VideoMamba-Ti: 7.1 million parameters, ImageNet-1k 76.9%.", SIZES["tiny"]),
        "videomamba_small_patch16_224": Variant("VideoMamba-S: 25.8 million parameters, ImageNet-1k 81.2%.", SIZES["small"]),
        "videomamba_middle_patch16_224": Variant("VideoMamba-M: 74.2 million parameters, ImageNet-1k 82.8%.", SIZES["middle"]),
        "videomamba_base_patch16_224": Variant("VideoMamba-B: 97.6 million parameters, ImageNet-1k 82.7%.", SIZES["base"]),
    },
    checkpoint_filter_fn, 3, fixed_input_size=True, first_conv="patch_embed.proj", classifier="head", license="apache-2.0",
    origin_url="https://github.com/OpenGVLab/VideoMamba", paper_ids="arXiv:2403.06977",
)  # fmt: skip
