"""Compiling CPU kernels, and running them on PyTorch's own threads.

A kernel takes one argument, the address of a record of addresses, sizes and strides, and draws work items from a shared
counter until none is left. The threads that run it are those of PyTorch's OpenMP pool: `torch.set_num_threads` rules both,
and no second pool competes for the cores. What a kernel computes depends on the items, never on who ran them.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numba
import numpy as np
import torch
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

_home = os.getpid()

inlined = functools.partial(numba.njit, error_model="numpy", nogil=True)


@intrinsic
def _pointer(typingctx, address):
    def build(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.int64), build


@inlined
def record_at(address, kind):
    """The record of a numpy dtype at a byte address."""
    return numba.carray(_pointer(address), 1, kind)[0]


class Kernel:
    """A function of one address, compiled at its first run and kept on disk.

    The cache is `polymamba` in the user's cache folder (or NUMBA_CACHE_DIR), in a folder named by a hash of every kernel
    source: Numba itself would not notice a change in an imported file.
    """

    def __init__(self, function):
        self.function = function

    @functools.cached_property
    def address(self) -> int:
        before = numba.config.CACHE_DIR
        numba.config.CACHE_DIR = str(cache_folder())
        try:
            compile_ = numba.cfunc("void(int64)", cache=True, nopython=True, error_model="numpy")
            self.compiled = compile_(self.function)
        finally:
            numba.config.CACHE_DIR = before
        return self.compiled.address

    def run(self, record: np.ndarray, items: int) -> None:
        """Run on as many threads as PyTorch uses, at most one an item; returns when all items are done."""
        threads = min(torch.get_num_threads(), items)
        argument = record.ctypes.data
        if threads <= 1 or os.getpid() != _home:
            # OpenMP's pool does not survive a fork: a forked child (a loader's worker) works alone.
            _call(self.address, argument)
        elif _openmp() is not None:
            _openmp().GOMP_parallel(ctypes.c_void_p(self.address), ctypes.c_void_p(argument), threads, 0)
        else:
            waiting = [_pool().submit(_call, self.address, argument) for _ in range(threads - 1)]
            _call(self.address, argument)
            for one in waiting:
                one.result()


def cache_folder() -> Path:
    """Where compiled kernels are kept."""
    base = os.environ.get("NUMBA_CACHE_DIR") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "polymamba"
    return Path(base) / f"kernels-{_source_hash()}"


@functools.cache
def _source_hash() -> str:
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _call(address: int, argument: int) -> None:
    _prototype(address)(argument)


_prototype = ctypes.CFUNCTYPE(None, ctypes.c_int64)


@functools.cache
def _openmp() -> ctypes.CDLL | None:
    """The GNU OpenMP library that PyTorch itself loaded, or None (macOS, Windows, other builds)."""
    path = Path(torch.__file__).parent / "lib" / "libgomp.so.1"
    if "OpenMP" not in torch.__config__.parallel_info() or not path.exists():
        return None
    library = ctypes.CDLL(str(path))
    library.GOMP_parallel.restype = None
    return library if hasattr(library, "GOMP_parallel") else None


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=max(1, (os.cpu_count() or 2) - 1), thread_name_prefix="polymamba")


def scratch(floats: int, threads: int) -> torch.Tensor:
    """Uninitialised float32 memory (threads, floats), each row on its own cache lines."""
    return torch.empty(threads, -(-floats // 32) * 32 + 32, dtype=torch.float32)


def rows(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in float32 with its last axis contiguous: a copy only where it is neither."""
    tensor = tensor.float()
    return tensor if tensor.stride(-1) == 1 or tensor.shape[-1] <= 1 else tensor.contiguous()
