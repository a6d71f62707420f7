"""A plain U-Net (arXiv 1505.04597), MONAI's, to compare segmentation with."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ....core.ranges import Rate, Size, checked
from ...padding import Baseline

HALVINGS = 4


@checked(group="model")
def build(describe: Mapping, features: Size | None = None, dropout: Rate = 0.0) -> Baseline:
    """A U-Net of five levels, which takes images of any size.

    Args:
        describe: the data set's own description: channels, num_classes, model_size.
        features: channels of the finest level, doubled at the next three and kept at the last; None: 32, for small crops 8.
        dropout: after each convolution.
    """
    with torch.device("cpu"):  # tensors that the import makes are real where the model's are not
        from monai.networks.nets import BasicUNet

    base = features or (8 if describe.get("model_size") == "micro" else 32)
    widths = (base, base, 2 * base, 4 * base, 8 * base, base)
    norm = ("instance", {"affine": True})
    network = BasicUNet(2, describe["channels"], describe["num_classes"], widths, norm=norm, dropout=dropout)
    return Baseline(network, 2**HALVINGS)
