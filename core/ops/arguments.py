"""Reading the arguments of an operator: the paths axis that may be left out, and shapes that do not fit."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import UserError

MERGES = ("sum", "mean", "none")


def count_paths(order: Tensor | None, given: dict[str, tuple[Tensor | None, int]]) -> tuple[int, bool]:
    """Number of paths, and whether the paths axis is shown (by an argument, or because there are several).

    Args:
        order: (paths, steps) or (batch, paths, steps) or None.
        given: name -> (tensor, number of axes without paths); the paths axis is the first of a parameter, and the
            second of a tensor with a batch axis (three axes or more).
    """
    sizes = {}
    for name, (tensor, axes) in given.items():
        if tensor is not None and tensor.dim() == axes + 1:
            sizes[name] = tensor.shape[1 if axes >= 3 else 0]
    shown = bool(sizes)
    if order is not None and order.dim() >= 2:
        sizes["order"] = order.shape[-2]
    paths = max([1, *sizes.values()])
    if any(size not in (1, paths) for size in sizes.values()):
        raise UserError("the arguments disagree about the number of paths", given=sizes, allowed="one number, or 1")
    return paths, shown or paths > 1


def with_paths(tensor: Tensor, axes: int) -> Tensor:
    """The tensor with its paths axis (the second of `axes`) written out."""
    return tensor.unsqueeze(1) if tensor.dim() == axes - 1 else tensor


def per_path(parameter: Tensor | None, paths: int, axes: int) -> Tensor | None:
    """The parameter with its paths axis (the first of `axes`) written out, repeated where it is the same for all."""
    if parameter is None:
        return None
    if parameter.dim() == axes - 1:
        parameter = parameter.unsqueeze(0)
    repeat = parameter.dim() == axes and parameter.shape[0] != paths
    return parameter.expand(paths, *parameter.shape[1:]) if repeat else parameter


def check_shape(
    name: str,
    tensor: Tensor | None,
    shape: tuple,
    integer: bool = False,
    note: str = " (with the paths axis written out)",
) -> None:
    """Raise a UserError unless the tensor is None or fits.

    Args:
        shape: a size an axis; a tuple of sizes where several are allowed, None where any is.
        integer: the tensor holds token or sequence numbers.
        note: what the message says behind "wrong shape".
    """
    if tensor is None:
        return
    fits = tensor.dim() == len(shape) and all(
        want is None or (size in want if isinstance(want, tuple) else size == want)
        for size, want in zip(tensor.shape, shape, strict=True)
    )
    if not fits:
        sizes = ["any" if w is None else " or ".join(map(str, w)) if isinstance(w, tuple) else str(w) for w in shape]
        raise UserError(
            f"{name} has the wrong shape{note}", given=tuple(tensor.shape),
            allowed=f"({', '.join(sizes)})",
        )  # fmt: skip
    if integer and (tensor.is_floating_point() or tensor.is_complex()):
        raise UserError(f"{name} must be integer", given=tensor.dtype, allowed="any integer dtype")


def contiguous_as(tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> bool:
    """Whether a kernel that is told only the address may read the tensor as one of that shape and dtype."""
    return (
        tensor.shape == shape
        and tensor.dtype == dtype
        and tensor.is_contiguous()
        and tensor.is_cpu
        and not tensor.is_neg()
    )


def empty_by_path(create: Callable[..., Tensor], batch: int, paths: int, length: int, channels: int) -> Tensor:
    """Uninitialised (batch, paths, length, channels), the paths outermost in memory; `create` makes it from sizes.

    What follows a convolution along paths is a matrix product per path: so laid out, it needs no copy.
    """
    return create(paths, batch, length, channels).transpose(0, 1)


def owned(tensor: Tensor) -> Tensor:
    """The same memory as a tensor of its own: autograd lets nobody change an operator's result in place if it is a view."""
    return tensor if tensor._base is None else tensor.new_empty(0).set_(tensor)


def empty_rows(create: Callable[..., Tensor], like: Tensor, backend: str = "cpu") -> Tensor:
    """Uninitialised, in the shape of (batch, paths, length, channels) rows; `create` makes it from sizes.

    The CPU kernels keep the rows' outermost axis outermost; the GPU kernels write (batch, paths) in that order.
    """
    if backend == "cpu" and like.stride(0) < like.stride(1):
        return empty_by_path(create, *like.shape)
    return create(*like.shape)
