"""Products without a gradient on a CPU: a few rows as fast as the matrix can be read (decoding), large ones by oneDNN.

Everything else is PyTorch's own `F.linear`, which is also the definition.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn import functional as F

from ..decoding import MOST_ROWS, direct

# PyTorch gives float32 to MKL. From this many multiplications on, oneDNN, which it has too, is 1.0 to 1.4 times as fast on AMD's
# EPYC with AVX-512, one and two threads; below, its start costs more than it saves. On Intel's Xeon with AVX-512 it takes 1.05
# to 1.15 times as long as MKL.
LARGE = 1 << 24


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x weight^T + bias.

    Args:
        x: (..., inputs).
        weight: (outputs, inputs).
        bias: (outputs,).

    Returns:
        (..., outputs), in x's dtype; sums are in float32.
    """
    # Sizes are compared last: a graph that is being traced would take the comparisons for limits of its sizes.
    if direct(x) and x.dtype == weight.dtype and not torch.is_autocast_enabled("cpu") and _plain(x, weight, bias):
        if 0 < x.numel() <= MOST_ROWS * weight.shape[1] and x.dtype in (torch.float32, torch.bfloat16):
            found = _cpu().few_rows(x, weight, bias)
            if found is not None:
                return found
        if x.dtype == torch.float32 and x.numel() * weight.shape[0] >= LARGE and _onednn() is not None:
            return _onednn()(x, weight, bias, "none", [], "")
    return F.linear(x, weight, bias)


def stored_plainly(weight: Tensor) -> bool:
    """Whether its data is its numbers: not sharded, not quantised, no other subclass of a tensor."""
    return type(weight) is Parameter or type(weight) is Tensor or torch.compiler.is_compiling()


def _plain(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    fits = stored_plainly(weight) and weight.dim() == 2 and x.shape[-1] == weight.shape[1] and weight.is_contiguous()
    return fits and (bias is None or (bias.dtype == x.dtype and bias.is_contiguous()))


@cache
def _cpu():
    return import_module(".cpu", __package__)


@cache
def _onednn() -> Callable | None:
    """oneDNN's product, where there is one and MKL is not on its maker's own processor."""
    info = Path("/proc/cpuinfo")
    if "GenuineIntel" in (info.read_text() if info.exists() else platform.processor()):
        return None
    return getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None
