"""Segmentation networks of MONAI, to compare with: DynUNet (nnU-Net's), SegResNet, UNETR and SwinUNETR."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from ....core.errors import UserError
from ....core.ranges import Depth, Rate, Size, checked
from ...padding import Baseline
from .stages import described


@checked(group="model")
def dynunet(
    describe: Mapping, base_features: Size | None = None, max_features: Size | None = None, max_stages: Depth = 6,
    residual: bool = False, deep_supervision: bool = True, dropout: Rate = 0.0,
) -> Baseline:  # fmt: skip
    """nnU-Net's network (Isensee et al. 2021), with the stages that the data set's plan gives.

    Args:
        describe: channels, num_classes, patch_size, kernels and strides of the stages, model_size.
        base_features, max_features: channels of the finest stage, doubled at each stage up to the largest; None: 32 and 320, of
            micro data sets 8 and 64.
        max_stages: at most. residual: residual blocks. deep_supervision: in training answer at up to three scales.
    """
    with torch.device("cpu"):  # tensors that the import makes are real where the model's are not
        from monai.networks.nets import DynUNet

    known, micro = described(describe), describe.get("model_size") == "micro"
    base, most = base_features or (8 if micro else 32), max_features or (64 if micro else 320)
    count = max(3, min(len(known.strides), max_stages))
    # MONAI's network has a bottleneck and at least two more stages.
    filler = count - len(known.strides)
    kernels = [*known.kernels[:count], *[known.kernels[-1]] * filler]
    strides = [*known.strides[:count], *[(1,) * len(known.patch_size)] * filler]
    scales = min(3, count - 2)
    network = DynUNet(
        len(known.patch_size), known.channels, known.classes, kernels, strides, strides[1:],
        filters=[min(base * 2**number, most) for number in range(count)], dropout=dropout or None,
        deep_supervision=deep_supervision and scales > 0, deep_supr_num=max(scales, 1), res_block=residual,
    )  # fmt: skip
    steps = [1] * len(known.patch_size)
    for stride in strides:
        steps = [step * each for step, each in zip(steps, stride, strict=True)]
    return Baseline(network, steps)


@checked(group="model")
def segresnet(describe: Mapping, base_features: Size | None = None, dropout: Rate = 0.0) -> Baseline:
    """SegResNet (Myronenko 2018, arXiv 1810.11654) of four levels.

    Args:
        describe: channels, num_classes, patch_size, model_size.
        base_features: channels of the finest level; None: 32, of micro data sets 8.
    """
    with torch.device("cpu"):  # tensors that the import makes are real where the model's are not
        from monai.networks.nets import SegResNet

    known = described(describe)
    base = base_features or (8 if describe.get("model_size") == "micro" else 32)
    axes = len(known.patch_size)
    return Baseline(SegResNet(axes, base, known.channels, known.classes, dropout or None), 8)


@checked(group="model")
def unetr(
    describe: Mapping, hidden_size: Size | None = None, num_heads: Size | None = None, base_features: Size | None = None,
    dropout: Rate = 0.0,
) -> Baseline:  # fmt: skip
    """UNETR (Hatamizadeh et al. 2022, arXiv 2103.10504): a vision transformer as the encoder of a U-Net; patches of one size.

    Args:
        describe: channels, num_classes, patch_size, model_size.
        hidden_size, num_heads, base_features: None: 768, 12 and 16, of micro data sets 48, 3 and 8.
    """
    with torch.device("cpu"):  # tensors that the import makes are real where the model's are not
        from monai.networks.nets import UNETR

    known, micro = described(describe), describe.get("model_size") == "micro"
    sizes = tuple(-(-size // 16) * 16 for size in known.patch_size)
    hidden = hidden_size or (48 if micro else 768)
    heads, base = num_heads or (3 if micro else 12), base_features or (8 if micro else 16)
    network = UNETR(
        known.channels, known.classes, sizes, base, hidden, 4 * hidden, heads, "perceptron", dropout_rate=dropout,
        spatial_dims=len(sizes),
    )  # fmt: skip
    for block in network.vit.blocks:  # layers that MONAI makes for cross-attention and never calls here
        block.cross_attn, block.norm_cross_attn = nn.Identity(), nn.Identity()
    return Baseline(network, sizes)


@checked(group="model")
def swin_unetr(describe: Mapping, features: Size | None = None, dropout: Rate = 0.0) -> Baseline:
    """SwinUNETR (Hatamizadeh et al. 2022, arXiv 2201.01266): a Swin transformer of four stages as the encoder of a U-Net.

    Args:
        describe: channels, num_classes, patch_size, model_size.
        features: channels of the finest stage, a multiple of 12; None: 48, of micro data sets 12.
    """
    with torch.device("cpu"):  # tensors that the import makes are real where the model's are not
        from monai.networks.nets import SwinUNETR

    known = described(describe)
    features = features or (12 if describe.get("model_size") == "micro" else 48)
    if features % 12:
        raise UserError("model.features does not fit", given=features, allowed="a multiple of 12")
    axes = len(known.patch_size)
    # Five halvings; instance norm needs two places on the coarsest map.
    multiple = [32] * axes if max(known.patch_size) > 32 else [64, *[32] * (axes - 1)]
    # MONAI reads numbers out of tensors while it builds, which a device of sizes alone (meta) has not.
    device = torch.get_default_device()
    with torch.device("cpu"):
        network = SwinUNETR(known.channels, known.classes, feature_size=features, drop_rate=dropout, spatial_dims=axes)
    return Baseline(network.to(device), multiple)
