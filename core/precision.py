"""What half precision would spoil."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn


def as_given(x: Tensor) -> AbstractContextManager:
    """Within it, products are in the precision of what is multiplied, whatever autocast says on x's device.

    For sums that half precision would spoil, and Fourier transforms, which refuse bfloat16 on CUDA.
    """
    # Tensors without numbers know no autocast.
    return nullcontext() if x.device.type == "meta" else torch.autocast(x.device.type, enabled=False)


def pad_before_convolving(model: nn.Module) -> None:
    """Has a model's convolutions fill their inputs up with zeros themselves; what they answer stays the same.

    For training in bfloat16 on a CPU. Where a map is smaller than the kernel, oneDNN leaves a part of the weights' gradient as
    memory happened to be, unless it is given the map with its padding (PyTorch 2.11, AMD Zen 4: `Conv3d(24, 32, 3, padding=1)`
    over 2x2x2 voxels; the deepest maps of a U-Net are as small).
    """
    for module in model.modules():
        padded = isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) and any(module._reversed_padding_repeated_twice)
        if padded and module.padding_mode == "zeros":
            module.padding_mode = "constant"  # as torch.nn.functional.pad calls it
