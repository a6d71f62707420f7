"""Telling kernels where their tensors lie.

A kernel believes its record. So `address` and `addresses` are the only ways from a tensor to what stands in one: they look at
its device, dtype, shape and strides. Records are written by field name.
"""

from __future__ import annotations

import functools
import struct
from array import array
from collections import namedtuple
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..arguments import contiguous_as
from . import memory
from .team import Kernel

# Addresses of anything but float32 numbers, in all records.
DTYPES = {"order": torch.int32, "covers": torch.int32, "seq": torch.int64}
# Fields at the end of a record that are zero at first.
COUNTERS = ("tickets", "begun", "done")


def address(name: str, tensor: Tensor | None, shape: tuple, dtype: torch.dtype = torch.float32, walked: int = 0) -> int:
    """Where a CPU tensor's data lies; 0 for none.

    Args:
        name: of the record's field.
        shape: a size an axis, or several sizes that are allowed.
        walked: how many of the first axes the kernel is told the strides of; those behind them are contiguous.

    Raises:
        TypeError: the kernel would misread the tensor.
    """
    if tensor is None:
        return 0
    if not contiguous_as(tensor, shape, dtype) and not (
        _has(tensor.shape, shape)
        and tensor.dtype == dtype
        and tensor.is_cpu
        and not tensor.is_neg()
        and _contiguous_behind(tensor, walked)
    ):
        raise TypeError(
            f"a kernel would misread {name}: {tensor.dtype} {tuple(tensor.shape)} with strides {tensor.stride()} on "
            f"{tensor.device} in the place of {dtype} {tuple(shape)} on the CPU"
        )
    return tensor.data_ptr()


def addresses(**given: tuple[Tensor | None, tuple[int, ...], torch.dtype]) -> dict[str, int] | None:
    """As `address`, of what a kernel only reads: name -> (tensor, shape, dtype); None where one does not fit."""
    found = {}
    for name, (tensor, shape, dtype) in given.items():
        if tensor is None:
            found[name] = 0
            continue
        if not contiguous_as(tensor, shape, dtype):
            return None
        found[name] = (tensor if memory.guard is None else memory.guard.copy(tensor)).data_ptr()
    return found


def rows(tensor: Tensor) -> Tensor:
    """What a kernel reads, in float32 with its last axis contiguous: a copy only where it is neither."""
    if tensor.dtype != torch.float32 or tensor.is_neg():
        tensor = tensor.to(torch.float32).resolve_neg()
    if tensor.stride(-1) != 1 and tensor.shape[-1] > 1:
        tensor = tensor.contiguous()
    return tensor if memory.guard is None else memory.guard.copy(tensor)


def whole(tensor: Tensor | None, dtype: torch.dtype = torch.float32) -> Tensor | None:
    """What a kernel reads, contiguous and of that dtype: a copy only where it is neither; None stays None."""
    if tensor is None:
        return None
    if tensor.dtype != dtype or tensor.is_neg() or not tensor.is_contiguous():
        tensor = tensor.to(dtype).resolve_neg().contiguous()
    return tensor if memory.guard is None else memory.guard.copy(tensor)


def record(kernel: Kernel, **values: int) -> array:
    """The record of a kernel all of whose fields have 8 bytes: each field by its name, but for counters at its end.

    Floats are given as the int64 of their bits.
    """
    return array("q", _fields(kernel)(**values))


@functools.cache
def _fields(kernel: Kernel) -> type:
    names = kernel.kind.names
    assert kernel.kind.itemsize == 8 * len(names)
    counters = sum(name.rstrip("0123456789") in COUNTERS for name in names)
    assert all(name.rstrip("0123456789") in COUNTERS for name in names[len(names) - counters :])
    return namedtuple("Record", names, defaults=(0,) * counters)


def run(kernel: Kernel, items: int, records: array) -> None:
    """Run a kernel with what `record` made, or with several of those one behind the other.

    Whoever calls keeps the tensors alive whose addresses are in the records.
    """
    kernel.run(records.buffer_info()[0], items)
    if memory.guard is not None:
        names = kernel.kind.names
        layers = (divmod(i, len(names)) for i in range(len(records)))
        memory.guard.check(
            {f"{names[field]} (layer {layer})": records[layer * len(names) + field] for layer, field in layers}
        )


class KernelCall:
    """One run of a kernel: its record, and the tensors that keep the record's addresses valid.

    Every record has the fields items, scratch, scratch_bytes (of each thread), tickets and slots (two counters).

    Args:
        kind: the record's dtype.
        shapes: of the tensors by field, a size an axis, or several sizes that are allowed.
        values: of fields; all others are 0 at first.
    """

    def __init__(self, kind: np.dtype, shapes: dict[str, tuple], values: dict[str, int | float] | None = None):
        self.kind, self.values, self.shapes, self.alive = kind, _zeros(kind) | (values or {}), shapes, []

    @property
    def record(self) -> np.ndarray:
        """The record with what it has been told so far."""
        return np.frombuffer(_layout(self.kind).pack(*self.values.values()), self.kind)

    def set(self, **values) -> None:
        self.values.update(values)

    def point(self, **tensors: Tensor | None) -> None:
        """Give the kernel contiguous tensors; None leaves the address zero."""
        for name, tensor in tensors.items():
            self._point(name, tensor, ())

    def walk(self, name: str, tensor: Tensor | None, *axes: str, prefix: str | None = None) -> None:
        """Give the kernel a tensor and, in bytes, the strides of its first axes; 0 for an axis of size 1.

        Args:
            axes: their names; the axes behind them are contiguous.
            prefix: of the strides' fields; None: the name.
        """
        self._point(name, tensor, axes)
        if tensor is not None:
            for axis, stride, size in zip(axes, tensor.stride(), tensor.shape, strict=False):
                self.values[f"{prefix or name}_{axis}"] = 4 * stride if size > 1 else 0

    def run(self, kernel: Kernel, scratch_floats: int) -> None:
        items = self.values["items"]
        if not items:
            return
        # Each thread's scratch begins on its own cache line.
        scratch = memory.empty(min(torch.get_num_threads(), items), -(-scratch_floats // 32) * 32 + 32)
        self.alive.append(scratch)
        layout = _layout(self.kind)
        # The counters, at first zero, lie behind the record.
        told = array("q", bytes(-(-layout.size // 8) * 8 + 16))
        at = told.buffer_info()[0]
        counters = at + 8 * (len(told) - 2)
        self.set(
            scratch=address("scratch", scratch, scratch.shape), scratch_bytes=4 * scratch.shape[1], tickets=counters,
            slots=counters + 8,
        )  # fmt: skip
        layout.pack_into(told, 0, *self.values.values())
        kernel.run(at, items)
        if memory.guard is not None:
            memory.guard.check({name: int(value) for name, value in self.values.items()})

    def _point(self, name: str, tensor: Tensor | None, axes: Sequence[str]) -> None:
        self.alive.append(tensor)
        self.values[name] = address(name, tensor, self.shapes[name], DTYPES.get(name, torch.float32), len(axes))


@functools.cache
def _layout(kind: np.dtype) -> struct.Struct:
    """Writes a packed record from its fields' values: at once, since field by field takes as long as a small kernel."""
    return struct.Struct("=" + "".join(kind[name].char.replace("l", "q") for name in kind.names))


@functools.cache
def _zeros(kind: np.dtype) -> dict[str, int]:
    return dict.fromkeys(kind.names, 0)


def _has(sizes: Sequence[int], shape: tuple) -> bool:
    return len(sizes) == len(shape) and all(
        size == want or (isinstance(want, tuple) and size in want) for size, want in zip(sizes, shape, strict=True)
    )


def _contiguous_behind(tensor: Tensor, axes: int) -> bool:
    """Whether the axes after the first `axes` lie in memory one number behind the other."""
    if tensor.is_contiguous():
        return True
    expected = 1
    for size, stride in zip(reversed(tensor.shape[axes:]), reversed(tensor.stride()[axes:]), strict=True):
        if size > 1 and stride != expected:
            return False
        expected *= size
    return True
