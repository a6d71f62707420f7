"""The gated norm on the CPU: memory and threads around cpu_kernels.py."""

from __future__ import annotations

from torch import Tensor

from ..arguments import total
from ..cpu.calls import address, record, rows, run, whole
from ..cpu.layer_kernel import bits
from ..cpu.memory import empty
from .cpu_kernels import ROWS, backward_kernel, forward_kernel


def forward(x: Tensor, z: Tensor | None, weight: Tensor, groups: int, norm_before_gate: bool, eps: float) -> Tensor:
    """(..., channels)."""
    out = empty(*x.shape)
    _run(forward_kernel, x, z, weight, groups, norm_before_gate, eps, out=out.view(-1, x.shape[-1]))
    return out


def backward(
    grad: Tensor, x: Tensor, z: Tensor | None, weight: Tensor, groups: int, norm_before_gate: bool, eps: float
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Gradients of x, z and weight, whose sums over rows are taken item by item, in a fixed order."""
    channels = x.shape[-1]
    dx, dz = empty(*x.shape), None if z is None else empty(*x.shape)
    dweight = empty(-(-x.numel() // channels // ROWS), channels)
    told = {"grad": rows(grad).reshape(-1, channels), "dweight": dweight}
    told |= {"dx": dx.view(-1, channels), "dz": None if dz is None else dz.view(-1, channels)}
    _run(backward_kernel, x, z, weight, groups, norm_before_gate, eps, **told)
    return dx, dz, total(dweight).to(weight.dtype)


def _run(
    kernel, x: Tensor, z: Tensor | None, weight: Tensor, groups: int, norm_before_gate: bool, eps: float, **own
) -> None:
    channels = x.shape[-1]
    read = {name: None if t is None else rows(t).reshape(-1, channels) for name, t in (("x", x), ("z", z))}
    weight, count = whole(weight), len(read["x"])
    told = dict.fromkeys(("z", "out", "grad", "dx", "dz", "dweight", "z_row", "grad_row"), 0)
    for name, tensor in (read | own).items():
        if tensor is None:
            continue
        walked = name in ("x", "z", "grad")
        told[name] = address(name, tensor, tuple(tensor.shape), walked=int(walked))
        if walked:
            told[f"{name}_row"] = 4 * tensor.stride(0)
    items = -(-count // ROWS)
    run(kernel, items, record(
        kernel, **told, weight=address("weight", weight, (channels,)), rows=count, channels=channels, groups=groups,
        gate_last=int(norm_before_gate or z is None), items=items,
        eps=bits(eps),
    ))  # fmt: skip
