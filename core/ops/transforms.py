"""Who else is at work on a call: tracers, function transforms, derivatives that the kernels have no rule for."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch._C._functorch import TransformType, get_interpreter_stack, peek_interpreter_stack
from torch.autograd import forward_ad


def transformed() -> bool:
    """Whether torch.func, torch.vmap or forward mode is at work."""
    if torch.compiler.is_compiling():
        return False
    return peek_interpreter_stack() is not None or forward_ad._current_level >= 0


def watched() -> bool:
    """Whether something traces or transforms the calls, so that tensors cannot be looked into, nor kernels called past it."""
    return (
        torch.compiler.is_compiling()
        or transformed()
        or torch.jit.is_tracing()
        or torch._C._len_torch_dispatch_stack() > 0
    )


def differentiated(tensors: Iterable[Tensor | None]) -> bool:
    """Whether a derivative is taken that only plain PyTorch knows: forward mode, or one of torch.func's transforms.

    What autograd itself asks for (backward, torch.autograd.grad, gradients of gradients) is not: kernels answer that.
    """
    if torch.compiler.is_compiling():
        return False
    if peek_interpreter_stack() is not None:
        kinds = {interpreter.key() for interpreter in get_interpreter_stack()}
        return forward_ad._current_level >= 0 or not kinds.isdisjoint((TransformType.Grad, TransformType.Jvp))
    if forward_ad._current_level < 0:
        return False
    return any(t is not None and forward_ad.unpack_dual(t).tangent is not None for t in tensors)
