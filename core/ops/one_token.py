"""When a kernel may be called straight from Python, past the operator machinery, whose cost is that of several tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from .transforms import watched

# From more rows than this on, PyTorch's blocked matrix product is faster than reading the matrix row by row.
MOST_ROWS = 4


def at_once(x: Tensor, backend: str = "auto") -> bool:
    """Whether x is a plain CPU tensor, no gradient is recorded and nothing traces or transforms the call."""
    return (
        not torch.is_grad_enabled()
        and backend in ("auto", "cpu")
        and type(x) is Tensor
        and x.device.type == "cpu"
        and not watched()
    )


def few_rows_at_once(x: Tensor, backend: str = "auto") -> bool:
    """Whether x is one token of few sequences, (batch, 1, channels), that a kernel of whole layers may be called for."""
    # Sizes are looked at last: a graph that is being traced would take the comparisons for limits of its sizes.
    return (
        at_once(x, backend)
        and x.dim() == 3
        and x.shape[1] == 1
        and 0 < x.shape[0] <= MOST_ROWS
        and x.dtype in (torch.float32, torch.bfloat16)
        and not torch.is_autocast_enabled("cpu")
    )


def contiguous_as(tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> bool:
    """Whether a kernel that is told only the address may read the tensor as one of that shape and dtype."""
    return (
        tensor.shape == shape
        and tensor.dtype == dtype
        and tensor.is_contiguous()
        and tensor.is_cpu
        and not tensor.is_neg()
    )
