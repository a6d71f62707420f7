"""Turned keys on the CPU: memory and threads around cpu_kernels.py."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from ..arguments import total
from ..cpu.calls import address, record, run, whole
from ..cpu.lanes import WIDTH
from ..cpu.memory import empty
from .cpu_kernels import TOKENS, backward_kernel, forward_kernel


def forward(
    B: Tensor, C: Tensor, B_bias: Tensor, C_bias: Tensor, angle: Tensor, halves: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Both turned, (batch, paths, length, rank, heads, states), and cosines and sines of the angles."""
    angle = whole(angle)
    cos, sin = torch.cos(angle, out=empty(*angle.shape)), torch.sin(angle, out=empty(*angle.shape))
    (batch, length, rank, _, states), (_, paths, _, heads, _) = B.shape, angle.shape
    turned = [empty(batch, paths, length, rank, heads, states) for _ in range(2)]
    for t, bias, out in ((B, B_bias, turned[0]), (C, C_bias, turned[1])):
        _run(forward_kernel, t, bias, cos, sin, halves, out=out)
    return *turned, cos, sin


def backward(
    grad_B: Tensor | None, grad_C: Tensor | None, B: Tensor, C: Tensor, B_bias: Tensor, C_bias: Tensor, cos: Tensor,
    sin: Tensor, halves: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Gradients of B, C, their biases and the angles; those of the biases are summed item by item, in a fixed order."""
    dangle = empty(*cos.shape).zero_()
    keys, biases = [], []
    for grad, t, bias in ((grad_B, B, B_bias), (grad_C, C, C_bias)):
        if grad is None:
            keys.append(torch.zeros_like(t))
            biases.append(torch.zeros_like(bias))
            continue
        key, parts = empty(*t.shape), empty(_items(t), *bias.shape)
        _run(backward_kernel, t, bias, cos, sin, halves, grad=whole(grad), dt=key, dbias=parts, dangle=dangle)
        keys.append(key)
        biases.append(total(parts))
    return *keys, *biases, dangle


def _items(t: Tensor) -> int:
    return -(-t.shape[0] * t.shape[1] // TOKENS)


def _run(kernel, t: Tensor, bias: Tensor, cos: Tensor, sin: Tensor, halves: bool, **own: Tensor) -> None:
    (batch, length, rank, groups, states), (_, paths, _, heads, pairs) = t.shape, cos.shape
    each = (batch, paths, length, rank, heads, states)
    shapes = {
        "t": t.shape,
        "dt": t.shape,
        "out": each,
        "grad": each,
        "bias": bias.shape,
        "dbias": (_items(t), *bias.shape),
    }
    shapes |= dict.fromkeys(("cos", "sin", "dangle"), cos.shape)
    given = {"t": whole(t), "bias": whole(bias), "cos": whole(cos), "sin": whole(sin)} | own
    told = dict.fromkeys(("out", "grad", "dt", "dbias", "dangle"), 0)
    told |= {name: address(name, tensor, tuple(shapes[name])) for name, tensor in given.items()}
    run(kernel, _items(t), record(
        kernel, **told, signs=address("signs", _signs(), (WIDTH,)), length=length, paths=paths, rank=rank, groups=groups,
        heads=heads, states=states, pairs=pairs, halves=int(halves), tokens=batch * length, items=_items(t),
    ))  # fmt: skip


@functools.cache
def _signs() -> Tensor:
    """-1 and 1 in turn."""
    return torch.tensor([-1.0, 1.0], dtype=torch.float32, device="cpu").repeat(WIDTH // 2)
