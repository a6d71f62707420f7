"""When a kernel may be called straight from Python, past the operator machinery, whose cost is that of several tokens."""

from __future__ import annotations

import torch
from torch import Tensor


def at_once(x: Tensor, backend: str = "auto") -> bool:
    """Whether x is a plain CPU tensor, no gradient is recorded and nothing traces or transforms the call."""
    return (
        not torch.is_grad_enabled()
        and backend in ("auto", "cpu")
        and type(x) is Tensor
        and x.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and torch._C._functorch.peek_interpreter_stack() is None
        and torch._C._len_torch_dispatch_stack() == 0
    )
