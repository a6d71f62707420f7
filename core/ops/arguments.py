"""Reading the arguments of an operator: the paths axis that may be left out, and shapes that do not fit."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor

from ..errors import UserError
from .transforms import watched

MERGES = ("sum", "mean", "none")
REMEMBERED = 4096  # combinations of sizes, of each operator


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


class Shapes:
    """The shapes of an operator's arguments, each a text of its axes: "batch paths length channels".

    An axis has one size in all arguments. The paths axis, of a parameter the first, else the second, may be left out where an
    argument is the same for all paths. Written out it is 1 then; of parameters, and of what `each` names, it is expanded.
    """

    def __init__(self, shapes: dict[str, str], each: Collection[str] = ()):
        self.axes = {name: tuple(text.split()) for name, text in shapes.items()}
        self.each = {*each, *(name for name, axes in self.axes.items() if axes[0] == "paths")}
        self.fitting: set[tuple] = set()  # sizes that have been checked: a check costs as much as launching a kernel

    def count_paths(self, order: Tensor | None, given: dict[str, Tensor | None]) -> tuple[int, bool]:
        """Number of paths, and whether their axis is shown, as the function of that name."""
        by_path = {name: (given[name], len(axes) - 1) for name, axes in self.axes.items() if "paths" in axes}
        return count_paths(order, by_path)

    def written_out(
        self, paths: int, given: dict[str, Tensor | None], order: Tensor | None, seq_idx: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """The arguments with all axes, in the order of their shapes, then the order, ([batch or 1,] paths, steps).

        Raises:
            UserError: one has another shape.
        """
        found = []
        for name, axes in self.axes.items():
            tensor = given[name]
            if tensor is not None and "paths" in axes:
                tensor = with_paths(tensor, len(axes), axes.index("paths"))
            found.append(tensor)
        order = order[None] if order is not None and order.dim() == 2 else order
        self._check_once(paths, found, order, seq_idx)
        for place, (name, axes) in enumerate(self.axes.items()):
            tensor = found[place]
            if tensor is not None and name in self.each and tensor.shape[axes.index("paths")] != paths:
                found[place] = tensor.expand(*(paths if axis == "paths" else -1 for axis in axes))
        return (*found, order)

    def _check_once(
        self, paths: int, tensors: Sequence[Tensor | None], order: Tensor | None, seq_idx: Tensor | None
    ) -> None:
        if watched():  # sizes may be symbols, which are not to be compared without need
            self._check(paths, tensors, order, seq_idx)
            return
        kinds = (None if t is None else t.dtype for t in (order, seq_idx))
        said = (paths, *(None if t is None else t.shape for t in (*tensors, order, seq_idx)), *kinds)
        if said not in self.fitting:
            self._check(paths, tensors, order, seq_idx)
            if len(self.fitting) >= REMEMBERED:
                self.fitting.clear()
            self.fitting.add(said)

    def _check(
        self, paths: int, tensors: Sequence[Tensor | None], order: Tensor | None, seq_idx: Tensor | None
    ) -> None:
        sizes = {"paths": paths}
        for (name, axes), tensor in zip(self.axes.items(), tensors, strict=True):
            if tensor is None:
                continue
            check_shape(name, tensor, tuple((1, sizes[axis]) if axis == "paths" else sizes.get(axis) for axis in axes))
            for axis, size in zip(axes, tensor.shape, strict=True):
                sizes.setdefault(axis, size)
        check_shape("order", order, ((1, sizes["batch"]), paths, None), integer=True)
        check_shape("seq_idx", seq_idx, (sizes["batch"], sizes["length"]), integer=True)


def with_paths(tensor: Tensor, axes: int, place: int = 1) -> Tensor:
    """The tensor with its paths axis, which stands at `place` of `axes`, written out."""
    return tensor.unsqueeze(place) if tensor.dim() == axes - 1 else tensor


def check_groups(channels: int, groups: int, what: str) -> None:
    """Raise a UserError unless so many channels or heads, as `what` calls them, divide evenly into groups."""
    if groups < 1 or channels % groups:
        raise UserError(f"{what} must divide evenly into groups", given=f"{channels} {what}, {groups} groups")


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


def total(parts: Tensor) -> Tensor:
    """The sum over the first axis; of one part, a view of it."""
    return parts.sum(0) if len(parts) != 1 else parts[0]


def empty_rows(create: Callable[..., Tensor], like: Tensor, backend: str = "cpu") -> Tensor:
    """Uninitialised, in the shape of (batch, paths, length, channels) rows; `create` makes it from sizes.

    The CPU kernels keep the rows' outermost axis outermost; the GPU kernels write (batch, paths) in that order.
    """
    if backend == "cpu" and like.stride(0) < like.stride(1):
        return empty_by_path(create, *like.shape)
    return create(*like.shape)
