"""Calling a layer, or reading its weights past it where that is the same: for products that are quicker than PyTorch's own."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from .ops.gated_norm import gated_norm
from .ops.linear import linear, stored_plainly
from .ops.registration import plain

# From so many numbers on, one pass over an RMS norm's rows and one back outweigh what calling a kernel costs: a training step of
# 197 x 192 takes 0.65 of PyTorch's time, 2,048 x 192 0.29, 5 x 32 1.7 times (Intel Xeon with AVX-512, one thread).
MANY = 1 << 15
LINEAR = (nn.Linear,)
CONVOLUTION = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def applied(layer: nn.Module, x: Tensor) -> Tensor:
    """layer(x); of a plain linear layer by core/ops/linear, which decodes a row as fast as the weights can be read."""
    return linear(x, layer.weight, layer.bias) if is_plain(layer) else layer(x)


def is_plain(layer: nn.Module, kinds: tuple[type[nn.Module], ...] = LINEAR) -> bool:
    """Whether calling the layer is what its kind computes from its weights and nothing more, so that they may be read instead.

    Not where something stands in its place (a LoRA wrapper, a quantised or parametrised layer, any subclass), where hooks of
    any kind listen, or where its weight is another kind of tensor (sharded, quantised).
    """
    # Not layer.weight, which takes as long as all the rest: decoding asks of every layer for every token.
    return type(layer) in kinds and stored_plainly(layer._parameters.get("weight")) and is_bare(layer)


def plain_parameters(
    layer: nn.Module, kinds: tuple[type[nn.Module], ...] = LINEAR
) -> tuple[Tensor, Tensor | None] | None:
    """Weight and bias of a layer that is plain, else None."""
    parameters = layer._parameters
    return (parameters["weight"], parameters.get("bias")) if is_plain(layer, kinds) else None


def runs(module: nn.Module, forward: Callable) -> bool:
    """Whether calling the module is this forward and nothing more: not a subclass's own, no hook."""
    kind = type(module)
    return kind.forward is forward and kind.__call__ is nn.Module.__call__ and is_bare(module)


def normalised(norm: nn.Module, x: Tensor, backend: str = "auto") -> Tensor:
    """norm(x), computed in the norm's own dtype; an Identity in a norm's place changes nothing.

    A plain RMS norm of many numbers on a CPU is that of core/ops/gated_norm: PyTorch's is six operators, more backwards.
    """
    weight = getattr(norm, "weight", None)
    if not isinstance(weight, Tensor):
        weight = next(norm.parameters(), None)  # of what something stands around
    x = x if weight is None else x.to(weight.dtype)
    if (
        is_plain(norm, (nn.RMSNorm,))
        and norm.eps is not None
        and weight.dim() == 1
        and plain((x, weight))
        and x.numel() >= MANY
    ):
        return gated_norm(x, None, weight, eps=norm.eps, backend=backend)
    return norm(x)


def is_bare(module: nn.Module) -> bool:
    """Whether calling the module is its class's forward and nothing more: no hook, its own or of all modules, no other forward."""
    return not (
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or "forward" in module.__dict__
        or _has_any_global_hook()
    )
