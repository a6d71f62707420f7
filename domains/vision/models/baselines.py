"""Timm's networks to compare with: a vision transformer and a ConvNeXt, small forms for small images among them."""

from __future__ import annotations

from typing import Literal

import timm
from timm.models.convnext import ConvNeXt
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from ....core.ranges import Rate, Side, checked
from .backbone import size_for
from .patches import suitable_patch_size

VIT = {
    "micro": {"embed_dim": 64, "depth": 4, "num_heads": 4, "class_token": False, "global_pool": "avg"},
    "tiny": {"architecture": "vit_tiny_patch16_224"},
    "small": {"architecture": "vit_small_patch16_224"},
    "base": {"architecture": "vit_base_patch16_224"},
}
CONVNEXT = {
    "micro": {"depths": (1, 1, 2, 1), "dims": (16, 32, 48, 64)},
    "atto": {"architecture": "convnext_atto"},
    "tiny": {"architecture": "convnext_tiny"},
    "small": {"architecture": "convnext_small"},
    "base": {"architecture": "convnext_base"},
}


@checked(group="model")
def vit(
    describe: dict, size: Literal["micro", "tiny", "small", "base"] | None = None, patch_size: Side | None = None,
    drop_path_rate: Rate = 0.0,
) -> nn.Module:  # fmt: skip
    """A vision transformer (arXiv 2010.11929, the sizes of DeiT, arXiv 2012.12877) for a data set.

    Args:
        describe: the data set's own description: channels, image_size (height, width), num_classes, model_size.
        size: a size of VIT; None: what the data set asks for.
        patch_size: pixels; None: what suits the image size.
    """
    image_size = tuple(describe["image_size"])
    return _made(
        VisionTransformer, size_for(describe, size, VIT), describe, img_size=image_size, drop_path_rate=drop_path_rate,
        patch_size=suitable_patch_size(image_size) if patch_size is None else patch_size,
    )  # fmt: skip


@checked(group="model")
def convnext(
    describe: dict, size: Literal["micro", "atto", "tiny", "small", "base"] | None = None,
    stride: Literal[4, 1] | None = None, drop_path_rate: Rate = 0.0,
) -> nn.Module:  # fmt: skip
    """A ConvNeXt (arXiv 2201.03545) for a data set.

    Args:
        describe, size: as of `vit`.
        stride: pixels of the first map's places; None: 4, or of images of less than 16 pixels a side 1. Each stage has half as many
            a side as the one before; where one would have none left, timm's dilation takes the place of the halving.
    """
    side = min(describe["image_size"])
    stride = stride or (4 if side >= 16 else 1)
    whole = 1 << (min(side, 32).bit_length() - 1)  # the pixels that a place of the last map may have
    chosen = size_for(describe, size, CONVNEXT)
    return _made(
        ConvNeXt, chosen, describe, patch_size=stride, output_stride=max(whole, 8), drop_path_rate=drop_path_rate
    )


def _made(kind: type[nn.Module], chosen: dict, describe: dict, **options) -> nn.Module:
    options |= {"in_chans": describe["channels"], "num_classes": describe["num_classes"]}
    if "architecture" in chosen:
        return timm.create_model(chosen["architecture"], **options)
    return kind(**chosen, **options)
