"""Compiling CPU kernels, and running them on PyTorch's own threads.

A kernel takes one argument, the address of a record of addresses, sizes and strides, and draws work items from a shared
counter until none is left. The threads that run it are those of PyTorch's OpenMP pool: `torch.set_num_threads` rules both,
and no second pool competes for the cores. What a kernel computes depends on the items, never on who ran them.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import hashlib
import os
import pickle
import shutil
import tempfile
from array import array
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from ...errors import say_once
from .subnormals import call_at, flush_subnormals, restore_subnormals

_home = os.getpid()

# What reading a cache that was cut off or overwritten ends in.
DAMAGED = (
    pickle.UnpicklingError,
    EOFError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    ImportError,
    RuntimeError,
)

# Beside an operator's own kernels, what goes into them.
SHARED_SOURCES = (
    "dots",
    "lane_math",
    "lanes",
    "phases",
    "products",
    "residual_norm",
    "subnormals",
    "team",
    "token_convolution",
)

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
    """A function of the address of a record, compiled at its first run and kept on disk.

    Args:
        function: of one int64.
        kind: the record's dtype.

    The cache is `polymamba` in the user's cache folder (or NUMBA_CACHE_DIR), in a folder named by a hash of the sources:
    Numba itself would not notice a change in an imported file.
    """

    def __init__(self, function, kind: np.dtype):
        self.function, self.kind = function, kind

    @functools.cached_property
    def address(self) -> int:
        self.compiled = kept_on_disk(self.function.__code__.co_filename, self._compile)
        return self.compiled.address

    def _compile(self):
        if not _kept(self.function):
            say_once("compiling CPU kernels, once for this version: that takes a while …", "kernels")
        return numba.cfunc("void(int64)", cache=True, nopython=True, error_model="numpy")(self.function)

    @functools.cached_property
    def call(self):
        """The compiled function, of a record's address; other Python threads run meanwhile."""
        return _prototype(self.address)

    def run(self, argument: int, items: int) -> None:
        """Run with the record at an address on as many threads as PyTorch uses, at most one an item; returns when all are done."""
        entered = array("q", (self.address, argument))
        address = entered.buffer_info()[0]
        threads = min(torch.get_num_threads(), items) if items > 1 else 1
        if threads <= 1 or os.getpid() != _home:
            # OpenMP's pool does not survive a fork: a forked child (a loader's worker) works alone.
            enter.call(address)
        elif _openmp() is not None:
            _openmp().GOMP_parallel(ctypes.c_void_p(enter.address), ctypes.c_void_p(address), threads, 0)
        else:
            waiting = [_pool().submit(enter.call, address) for _ in range(threads - 1)]
            enter.call(address)
            for one in waiting:
                one.result()


def kept_on_disk(source: str, compile_: Callable[[], Any]) -> Any:
    """What `compile_` gives, from the disk where it lies there; a damaged cache is deleted and filled again."""
    with cached_on_disk(source) as folder:
        try:
            return compile_()
        except DAMAGED:
            shutil.rmtree(folder, ignore_errors=True)
            return compile_()


@contextmanager
def cached_on_disk(source: str):
    """Functions that Numba compiles with cache=True in this context are kept in the folder of their operator's sources.

    Yields that folder; it is one of this process alone where the usual one cannot be made or written to.
    """
    base = (
        os.environ.get("NUMBA_CACHE_DIR")
        or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "polymamba"
    )
    digest = hashlib.sha256()
    shared = (Path(__file__).with_name(f"{name}.py") for name in SHARED_SOURCES)
    for file in (*sorted(Path(source).parent.glob("cpu*_kernels.py")), *shared):
        digest.update(file.read_bytes())
    before, name = numba.config.CACHE_DIR, f"kernels-{digest.hexdigest()[:16]}"
    folder = Path(base, name)
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        folder = Path(_own_folder(), name)
    numba.config.CACHE_DIR = str(folder)
    try:
        yield folder
    finally:
        numba.config.CACHE_DIR = before


@functools.cache
def _own_folder() -> str:
    """A folder that nobody else can write to: what Numba reads from its cache is run."""
    folder = tempfile.mkdtemp(prefix="polymamba-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _kept(function) -> bool:
    """Whether the present cache folder holds a function's machine code: Numba's index is named after it."""
    return any(Path(numba.config.CACHE_DIR).glob(f"*/*.{function.__name__}-*.nbi"))


_prototype = ctypes.CFUNCTYPE(None, ctypes.c_int64)


def _enter(address):
    p = record_at(address, _ENTERED)
    before = flush_subnormals()
    call_at(p.kernel, p.argument)
    restore_subnormals(before)


_ENTERED = np.dtype([("kernel", np.int64), ("argument", np.int64)])
# Every kernel runs inside this one.
enter = Kernel(_enter, _ENTERED)


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
