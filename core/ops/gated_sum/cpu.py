"""The gated sum on the CPU: memory and threads around cpu_kernels.py."""

from __future__ import annotations

from torch import Tensor

from ..arguments import total
from ..cpu.calls import address, record, rows, run, whole
from ..cpu.memory import empty
from .cpu_kernels import TOKENS, backward_kernel, forward_kernel


def forward(y: Tensor, z: Tensor, z_scale: Tensor | None, y_scale: Tensor | None) -> Tensor:
    """(batch, paths, length, channels)."""
    out = empty(*y.shape[:3], y.shape[4])
    _run(forward_kernel, y, z, z_scale, y_scale, out=out)
    return out


def backward(grad: Tensor, y: Tensor, z: Tensor, z_scale: Tensor | None, y_scale: Tensor | None) -> list[Tensor]:
    """Gradients of y, z and the scales; those of the scales are summed item by item, in a fixed order."""
    dy, dz = empty(*y.shape), empty(*z.shape)
    if z_scale is None or y_scale is None:
        _run(backward_kernel, y, z, z_scale, y_scale, grad=whole(grad), dy=dy, dz=dz)
        return [dy, dz]
    parts = {name: empty(_items(z), *z_scale.shape) for name in ("dz_scale", "dy_scale")}
    _run(backward_kernel, y, z, z_scale, y_scale, grad=whole(grad), dy=dy, dz=dz, **parts)
    return [dy, dz, *(total(each) for each in parts.values())]


def _items(z: Tensor) -> int:
    return -(-z.shape[0] * z.shape[1] // TOKENS)


def _run(kernel, y: Tensor, z: Tensor, z_scale: Tensor | None, y_scale: Tensor | None, **own: Tensor) -> None:
    batch, paths, length, rank, channels = y.shape
    out, z = (batch, paths, length, channels), rows(z).reshape(-1, channels)
    scale, parts = (rank, channels), (_items(z[None]), rank, channels)
    shapes = {"y": y.shape, "dy": y.shape, "z": z.shape, "dz": (batch, length, channels), "out": out, "grad": out}
    shapes |= {"z_scale": scale, "y_scale": scale, "dz_scale": parts, "dy_scale": parts}
    given = {"y": whole(y), "z": z, "z_scale": whole(z_scale), "y_scale": whole(y_scale)} | own
    told = dict.fromkeys(shapes, 0)
    told |= {name: address(name, t, tuple(shapes[name]), walked=int(name == "z")) for name, t in given.items()}
    run(kernel, _items(z[None]), record(
        kernel, **told, z_row=4 * z.stride(0), length=length, paths=paths, rank=rank, channels=channels, tokens=len(z),
        items=_items(z[None]),
    ))  # fmt: skip
