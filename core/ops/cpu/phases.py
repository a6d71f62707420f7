"""Kernels in phases, each of which needs all that the one before it found, in one run of the team.

The items of a phase are drawn from its own counter. A thread that finds none left waits until all have been done, not until
all threads have come by: a thread that the system has not let run yet holds nobody up, and any number of threads, one too,
gets through. Whoever waits long lets other threads of the machine run.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .lanes import take_ticket
from .team import inlined

# Looks at the counter before a waiting thread begins to give way: about 30 microseconds.
PATIENCE = 1000

_long = ir.IntType(64)
_nothing = ir.FunctionType(ir.VoidType(), [])


def record(fields: str, phases: int, numbers: str = "") -> np.dtype:
    """The record of a kernel in phases: int64 fields, float64 ones (`numbers`), then two counters of each phase, zero at first."""
    counters = [f"{name}{phase}" for phase in range(phases) for name in ("begun", "done")]
    whole = [(name, np.int64) for name in (*fields.split(), "give_way")]
    return np.dtype(
        [*((name, np.float64) for name in numbers.split()), *whole, *((name, np.int64) for name in counters)]
    )


def phase(work, kind: np.dtype, number: int):
    """A function (address, record, items) that takes part in one phase; `work` does one item, of (record, item)."""
    begun, done = (kind.fields[f"{name}{number}"][1] for name in ("begun", "done"))

    @inlined
    def run(address, p, items):
        while True:
            item = take_ticket(address + begun)
            if item >= items:
                break
            work(p, item)
            _count(address + done)
        looks = 0
        while _counted(address + done) < items:
            _pause()
            looks += 1
            if looks > PATIENCE and p.give_way != 0:
                _call(p.give_way)

    return run


@functools.cache
def give_way() -> int:
    """The address of the system's function that lets another thread run; 0 where there is none."""
    if os.name != "posix":
        return 0
    return ctypes.cast(ctypes.CDLL(None).sched_yield, ctypes.c_void_p).value or 0


@intrinsic
def _count(typingctx, address):
    """Add one to the counter at a byte address; who sees that also sees what was written before."""

    def build(context, builder, signature, arguments):
        builder.atomic_rmw("add", builder.inttoptr(arguments[0], _long.as_pointer()), _long(1), "release")
        return context.get_dummy_value()

    return types.void(types.int64), build


@intrinsic
def _counted(typingctx, address):
    def build(context, builder, signature, arguments):
        return builder.load_atomic(builder.inttoptr(arguments[0], _long.as_pointer()), "acquire", 8)

    return types.int64(types.int64), build


@intrinsic
def _pause(typingctx):
    """Tell the processor that this thread is only waiting, where it can be told."""

    def build(context, builder, signature, arguments):
        if platform.machine().lower() in ("x86_64", "amd64"):
            builder.call(cgutils.get_or_insert_function(builder.module, _nothing, "llvm.x86.sse2.pause"), [])
        return context.get_dummy_value()

    return types.void(), build


@intrinsic
def _call(typingctx, address):
    """Call the function at an address, which takes nothing."""

    def build(context, builder, signature, arguments):
        builder.call(builder.inttoptr(arguments[0], _nothing.as_pointer()), [])
        return context.get_dummy_value()

    return types.void(types.int64), build
