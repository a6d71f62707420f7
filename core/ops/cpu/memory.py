"""Memory for what CPU kernels read and write: large blocks are kept for the next call.

The operating system clears every page that it hands out, and glibc gives large blocks back as soon as they are freed. At 65,536
tokens of 1536 channels a training step of the scan spends up to a third of its time on that (measured on a virtual machine,
where a page fault is dear), so blocks are kept, as PyTorch does on GPUs: at most KEPT_SHARE of the machine's memory.
"""

from __future__ import annotations

import math
import mmap
import os
import sys
import threading
import weakref

import numpy as np
import torch

from ..arguments import owned
from .guard import Guard

LARGE, KEPT_SHARE = 16 << 20, 1 / 8
# A block is lent for a tensor of at least this share of its size.
FILLED_SHARE = 3 / 4


class Pool:
    """Blocks of memory that come back when the tensor in them is gone.

    Args:
        limit: bytes that are kept free at most.
    """

    def __init__(self, limit: int):
        self.limit, self.blocks, self.lock = limit, [], threading.RLock()

    @property
    def kept(self) -> int:
        return sum(len(block) for block in self.blocks)

    def empty(self, shape: tuple[int, ...]) -> torch.Tensor:
        """An uninitialised float32 tensor."""
        count = math.prod(shape)
        block = self._take(4 * count)
        array = np.frombuffer(block, np.float32, count)
        weakref.finalize(array, self._give_back, block).atexit = False
        return owned(torch.from_numpy(array).view(shape))

    def _take(self, size: int) -> mmap.mmap:
        with self.lock:
            fitting = [block for block in self.blocks if FILLED_SHARE * len(block) <= size <= len(block)]
            if fitting:
                best = min(fitting, key=len)
                self.blocks = [block for block in self.blocks if block is not best]
                return best
        block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        # 2 MiB pages: 512 times fewer faults.
        block.madvise(mmap.MADV_HUGEPAGE)
        return block

    def _give_back(self, block: mmap.mmap) -> None:
        with self.lock:
            self.blocks.append(block)
            while self.blocks and self.kept > self.limit:
                self.blocks.pop(0)


_POOLED = sys.platform == "linux" and hasattr(mmap, "MADV_HUGEPAGE")
pool = Pool(int(KEPT_SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))) if _POOLED else None
# Set: every tensor of `empty`, and a copy of every tensor that a kernel reads, lies between canaries.
guard = Guard() if os.environ.get("POLYMAMBA_GUARD", "0") not in ("", "0") else None


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """An uninitialised contiguous CPU tensor, whatever PyTorch's default dtype and device; large ones in kept memory."""
    if guard is not None:
        return guard.empty(shape, dtype)
    if pool is None or dtype != torch.float32 or 4 * math.prod(shape) < LARGE:
        return torch.empty(shape, dtype=dtype, device="cpu")
    return pool.empty(shape)


def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """As `empty`, all zero."""
    return empty(*shape, dtype=dtype).zero_()
