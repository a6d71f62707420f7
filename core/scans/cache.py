"""A bounded cache of order tensors that also works inside whatever traces or transforms the calls, and in inference mode."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.utils._python_dispatch import _disable_current_modes


@contextmanager
def ordinary_tensors() -> Iterator[None]:
    """What is made within the block outlives the call around it.

    So it must not be the fake tensor of a tracer, a step that torch.jit.trace records, what torch.func wraps around a tensor, or
    an inference tensor, which autograd refuses.
    """
    with _untraced(), torch.inference_mode(False), _untransformed(), _disable_current_modes(), unset_fake_temporarily():
        yield


@contextmanager
def _untraced() -> Iterator[None]:
    state = torch._C._get_tracing_state()
    if state is None:
        yield
        return
    torch._C._set_tracing_state(None)
    try:
        yield
    finally:
        torch._C._set_tracing_state(state)


def _untransformed():
    if torch._C._functorch.peek_interpreter_stack() is None:
        return nullcontext()
    from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack

    return temporarily_clear_interpreter_stack()


class OrderCache:
    """Keeps the `size` tensors that were asked for last."""

    def __init__(self, size: int):
        self.size = size
        self._kept: OrderedDict[Hashable, torch.Tensor] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, build: Callable[[], torch.Tensor]) -> torch.Tensor:
        """The tensor kept under `key`; built where there is none."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        with ordinary_tensors():
            built = build()
        with self._lock:
            kept = self._kept.setdefault(key, built)
            while len(self._kept) > self.size:
                self._kept.popitem(last=False)
        return kept
