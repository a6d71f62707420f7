"""A backbone of timm's, or of this package's that are timm's, with a head that gives each pixel a class.

The head is UPerNet's (arXiv 1807.10221: the coarsest map pooled at several scales, then from coarse to fine) or the lighter one of
Panoptic FPN (arXiv 1901.02446). Its norms are over groups of channels, as crops come in small batches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....core.errors import UserError, closest
from ....core.ranges import Rate, Side, Size, checked
from ....core.scans import Scan

FINEST = 4  # pixels of a token of the finest map that a plain backbone's is made into
POOLED = (1, 2, 3, 6)
LEVELS = 4


class Segmenter(nn.Module):
    """A class for each pixel.

    Args:
        backbone: a model that gives maps (`forward_intermediates`, `feature_info`), without its classifier.
        num_classes: outputs of each pixel.
        head: "upernet" or "fpn". channels: of the head's maps.
        dropout: before the last layer, of whole channels.
    """

    def __init__(
        self, backbone: nn.Module, num_classes: int, head: str = "fpn", channels: int = 128, dropout: float = 0.1
    ):
        super().__init__()
        infos = list(backbone.feature_info)
        infos = [each if isinstance(each, Mapping) else dict(each) for each in infos]
        plain = len({each["reduction"] for each in infos}) == 1
        self.taken = _taken(len(infos), plain)
        backbone.prune_intermediate_layers(self.taken, prune_norm=True, prune_head=True)
        self.backbone, self.num_classes = backbone, num_classes
        # A plain backbone has one scale: its maps, or the only one there is, are made finer and coarser (BEiT, ViTDet).
        self.levels = LEVELS if len(self.taken) == 1 else len(self.taken)
        widths, stride = [infos[each]["num_chs"] for each in self.taken], infos[0]["reduction"]
        widths = widths * (self.levels // len(widths))
        scales = [max(stride / FINEST, 1) / 2**level if plain else 1 for level in range(self.levels)]
        self.rescale = nn.ModuleList(map(_rescale, widths, scales))
        self.pooled = (
            nn.ModuleList(_convolution(widths[-1], channels, 1) for _ in POOLED) if head == "upernet" else None
        )
        last = widths[-1] + len(POOLED) * channels if head == "upernet" else widths[-1]
        self.lateral = nn.ModuleList(_convolution(width, channels, 1) for width in widths[:-1])
        self.coarsest = _convolution(last, channels, 3 if head == "upernet" else 1)
        self.smooth = nn.ModuleList(_convolution(channels, channels, 3) for _ in widths[:-1])
        self.fuse = _convolution(len(widths) * channels, channels, 3) if head == "upernet" else None
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(channels, num_classes, 1)

    @property
    def grids(self):
        """The tokens of the backbone's stages, where it says them."""
        return getattr(self.backbone, "grids", None)

    @property
    def tokens(self) -> int | None:
        """Tokens of the backbone's first stage, where it says them."""
        return getattr(self.backbone, "tokens", None)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, channels, height, width) to class scores (batch, num_classes, height, width)."""
        return F.interpolate(self.classify(self.dropout(self.features(images))), images.shape[-2:], mode="bilinear")

    def features(self, images: Tensor) -> Tensor:
        """(batch, channels, height, width) to the head's map at the backbone's finest scale, (batch, channels, rows, columns)."""
        maps = self.backbone.forward_intermediates(images, indices=self.taken, intermediates_only=True)
        maps = [rescale(each) for rescale, each in zip(self.rescale, maps * (self.levels // len(maps)), strict=True)]
        top = maps[-1]
        if self.pooled is not None:
            parts = [
                _to(part(F.adaptive_avg_pool2d(top, size)), top) for part, size in zip(self.pooled, POOLED, strict=True)
            ]
            top = torch.cat([top, *parts], 1)
        found = [self.coarsest(top)]
        for lateral, each in zip(reversed(self.lateral), reversed(maps[:-1]), strict=True):
            here = lateral(each)
            found.insert(0, here + _to(found[0], here))
        found = [*(smooth(each) for smooth, each in zip(self.smooth, found, strict=False)), found[-1]]
        if self.fuse is not None:
            return self.fuse(torch.cat([_to(each, found[0]) for each in found], 1))
        return torch.stack([_to(each, found[0]) for each in found]).sum(0)

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that weight decay would harm: the backbone's."""
        named = getattr(self.backbone, "no_weight_decay", set)()
        return {f"backbone.{name}" for name in named}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute the backbone's layers again in the backward pass instead of keeping what it needs."""
        self.backbone.set_grad_checkpointing(enable)


def _taken(count: int, plain: bool) -> list[int]:
    """The layers or stages whose maps are used: of a plain backbone evenly spaced ones, else the last four."""
    if plain:
        levels = min(LEVELS, count)
        return [round((level + 1) * count / levels) - 1 for level in range(levels)]
    return list(range(max(0, count - LEVELS), count))


def _to(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, like.shape[-2:], mode="bilinear")


def _convolution(given: int, channels: int, size: int) -> nn.Sequential:
    # of several channels each: a map pooled to one place would be its own mean
    groups = next(each for each in (32, 16, 8, 4, 2, 1) if channels % each == 0 and (channels >= 4 * each or each == 1))
    return nn.Sequential(
        nn.Conv2d(given, channels, size, padding=size // 2, bias=False), nn.GroupNorm(groups, channels), nn.GELU()
    )


def _rescale(channels: int, scale: float) -> nn.Module:
    """Makes a map finer (scale above 1, a power of 2) or coarser."""
    if scale < 1:
        return nn.MaxPool2d(round(1 / scale), ceil_mode=True)
    steps: list[nn.Module] = []
    while scale > 1:
        steps += [nn.ConvTranspose2d(channels, channels, 2, 2), nn.GroupNorm(1, channels), nn.GELU()]
        scale /= 2
    return nn.Sequential(*steps[:-1]) if steps else nn.Identity()


@checked(group="model")
def build(
    describe: Mapping,
    scan: str | Scan | None = None,
    backbone: str | None = None,
    head: Literal["upernet", "fpn"] = "fpn",
    channels: Size | None = None,
    dropout: Rate = 0.1,
    drop_path_rate: Rate = 0.0,
    patch_size: Side | None = None,
    options: dict | None = None,
) -> Segmenter:
    """A network for segmentation.

    Args:
        describe: the data set's own description: channels, image_size (height, width), num_classes, model_size.
        scan: of the backbone's layers, where it has a scan; None: its own.
        backbone: a name of timm's, this package's models among them; None: vmamba_micro, or for large crops
            vmamba_tiny (see `timm.list_models`).
        channels: of the head's maps; None: 128, for small crops 48.
        patch_size: of plain backbones, which need one that fits the crop; None: its own.
        options: further arguments of the backbone.

    Raises:
        UserError: timm does not know the backbone, or it gives no maps.
    """
    small = describe.get("model_size") == "micro"
    backbone = backbone or ("vmamba_micro" if small else "vmamba_tiny")
    if not timm.is_model(backbone):
        near = closest(backbone, timm.list_models())
        raise UserError(
            "timm knows no such backbone", given=f"model.backbone={backbone}",
            allowed="for example vmamba_micro, vim_micro, resnet18",
            do=f"model.backbone={near}" if near else None,
        )  # fmt: skip
    usual = {"drop_path_rate": drop_path_rate, "patch_size": patch_size}
    usual = {key: value for key, value in usual.items() if value}
    made = make_backbone(backbone, describe, scan, {**usual, **(options or {})})
    if not hasattr(made, "forward_intermediates") or not hasattr(made, "prune_intermediate_layers"):
        raise UserError(
            "this backbone gives no maps of its stages", given=f"model.backbone={backbone}", do="choose another"
        )
    return Segmenter(made, describe["num_classes"], head, channels or (48 if small else 128), dropout)


def make_backbone(name: str, describe: Mapping, scan: str | Scan | None, options: Mapping) -> nn.Module:
    """timm's model for images of the data's size and channels, with a scan where it takes one."""
    arguments = {"num_classes": 0, "in_chans": describe["channels"], **options}
    size = tuple(describe["image_size"])
    tries: Sequence[dict] = [{"img_size": size, "scan": scan}] if scan is not None else []
    for more in (*tries, {"img_size": size}, {}):
        try:
            return timm.create_model(name, **arguments, **more)
        except TypeError as error:
            if not any(f"'{key}'" in str(error) for key in more):
                raise
    raise AssertionError("unreachable")
