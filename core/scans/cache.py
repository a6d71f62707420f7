"""A bounded cache of order tensors that also works inside torch.compile, torch.export and inference mode."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

import torch
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.utils._python_dispatch import _disable_current_modes


class OrderCache:
    """Keeps the `size` tensors that were asked for last."""

    def __init__(self, size: int):
        self.size = size
        self._kept: OrderedDict[Hashable, torch.Tensor] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, build: Callable[[], torch.Tensor]) -> torch.Tensor:
        """The tensor kept under `key`; built where there is none.

        A kept tensor outlives the call that built it, so it must be an ordinary one: neither the fake tensor of a
        tracer nor an inference tensor, which autograd refuses.
        """
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        with torch.inference_mode(False), _disable_current_modes(), unset_fake_temporarily():
            built = build()
        with self._lock:
            kept = self._kept.setdefault(key, built)
            while len(self._kept) > self.size:
                self._kept.popitem(last=False)
        return kept
