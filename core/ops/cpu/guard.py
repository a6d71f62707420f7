"""Memory with canaries, in which a kernel that writes past a tensor's ends, or reads there, is found out.

POLYMAMBA_GUARD=1 turns it on (memory.py): slow, for tests. Every buffer then begins as NaN and lies between canaries that are
NaN too, so that what is read past an end shows in the results; after each kernel the canaries are looked at.
"""

from __future__ import annotations

import math
import threading
import weakref

import numpy as np
import torch
from torch import Tensor

from ..arguments import owned

# Bytes before and after each tensor; a multiple of a cache line.
MARGIN = 4096
# Repeated, a NaN of every floating point type.
CANARY = np.uint16(0x7FFD)


class OverrunError(RuntimeError):
    """A kernel wrote where it has no business."""


class Guard:
    """Makes tensors between canaries, and looks at those of all that are alive."""

    def __init__(self):
        self.blocks, self.mine = weakref.WeakValueDictionary(), threading.local()

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        size = math.prod(shape) * dtype.itemsize
        block = _canaries(2 * MARGIN + size + size % 2)
        inner = block[MARGIN : MARGIN + size]
        # A tensor that shows this memory holds `inner`, and that the block.
        self.blocks[block.ctypes.data] = inner
        return owned(torch.from_numpy(inner).view(dtype).view(shape))

    def copy(self, tensor: Tensor) -> Tensor:
        """The tensor with its strides between canaries, kept until the next `check` of this thread."""
        span = 1 + sum(stride * (size - 1) for stride, size in zip(tensor.stride(), tensor.shape, strict=True))
        made = self.empty((span if tensor.numel() else 0,), tensor.dtype)
        if tensor.numel():
            made.copy_(tensor.detach().as_strided((span,), (1,)))
        made = made.as_strided(tensor.shape, tensor.stride())
        self.kept.append(made)
        return made

    @property
    def kept(self) -> list[Tensor]:
        return self.mine.__dict__.setdefault("tensors", [])

    def check(self, addresses: dict[str, int]) -> None:
        """Raise unless all canaries are alive.

        Args:
            addresses: name -> what a kernel was told, to call an overrun buffer by its name.
        """
        self.kept.clear()
        for start, inner in list(self.blocks.items()):
            block, end = inner.base, MARGIN + inner.size
            whole = _canaries(block.size)
            before = (block[:MARGIN] != whole[:MARGIN]).nonzero()[0]
            after = (block[end:] != whole[end:]).nonzero()[0]
            if before.size or after.size:
                names = [name for name, at in addresses.items() if start <= at < start + block.size]
                block[:MARGIN], block[end:] = whole[:MARGIN], whole[end:]
                found = [f"{MARGIN - before[0]} bytes before its beginning"] if before.size else []
                found += [f"{1 + after[-1]} bytes past its end"] if after.size else []
                name = ", ".join(names) or "a tensor of another call"
                raise OverrunError(f"a kernel wrote up to {' and '.join(found)}: {name} ({inner.size} bytes)")


def _canaries(size: int) -> np.ndarray:
    block = np.empty(size, np.uint8)
    block.view(np.uint16).fill(CANARY)
    return block
