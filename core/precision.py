"""What autocast may not turn into half precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def as_given(x: Tensor) -> AbstractContextManager:
    """Within it, products are in the precision of what is multiplied, whatever autocast says on x's device.

    For sums that half precision would spoil, and Fourier transforms, which refuse bfloat16 on CUDA.
    """
    # Tensors without numbers know no autocast.
    return nullcontext() if x.device.type == "meta" else torch.autocast(x.device.type, enabled=False)
