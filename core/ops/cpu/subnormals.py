"""Numbers below 1.2e-38 are zero inside the CPU kernels.

A state, or its gradient, that is only multiplied by decays gets there and stays: half of the smallest number rounds to itself.
Intel processors take a hundred cycles for such an operand: the backward pass of a scan whose last tokens alone are scored took
4.5 times as long (397 ms instead of 88; 32 x 1,032 tokens of 128 channels on one core of a Xeon with AVX-512, 2026-11-26). The
setting is the thread's own and is put back: what PyTorch computes beside the kernels does not change.
"""

from __future__ import annotations

import platform

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

_X86 = platform.machine().lower() in ("x86_64", "amd64")
_ARM = platform.machine().lower() in ("aarch64", "arm64")
# The bits "flush to zero" and "denormals are zero" of x86's MXCSR; "flush to zero", of both kinds, of ARM's FPCR.
X86_BITS, ARM_BITS = 0x8040, 1 << 24

_int, _long, _address = ir.IntType(32), ir.IntType(64), ir.IntType(8).as_pointer()
_of_address = ir.FunctionType(ir.VoidType(), [_address])
_to_long = ir.FunctionType(_long, [])
_of_long = ir.FunctionType(ir.VoidType(), [_long])


@intrinsic
def flush_subnormals(typingctx):
    """From now on this thread takes subnormal numbers for zero; gives what was set before, for `restore_subnormals`."""

    def build(context, builder, signature, arguments):
        before = _settings(builder)
        _set(builder, builder.or_(before, _long(X86_BITS if _X86 else ARM_BITS)))
        return before

    return types.int64(), build


@intrinsic
def restore_subnormals(typingctx, before):
    """Set what `flush_subnormals` found."""

    def build(context, builder, signature, arguments):
        _set(builder, arguments[0])
        return context.get_dummy_value()

    return types.void(types.int64), build


@intrinsic
def call_at(typingctx, function, argument):
    """Call the function at an address with one int64. What it computes stays between the calls that are around it."""

    def build(context, builder, signature, arguments):
        builder.call(builder.inttoptr(arguments[0], _of_long.as_pointer()), [arguments[1]])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), build


def _settings(builder):
    """The thread's floating-point settings; 0 on processors that are not known here."""
    if _X86:
        place = cgutils.alloca_once(builder, _int)
        _control(builder, "llvm.x86.sse.stmxcsr", place)
        return builder.zext(builder.load(place), _long)
    if _ARM:
        return builder.call(cgutils.get_or_insert_function(builder.module, _to_long, "llvm.aarch64.get.fpcr"), [])
    return _long(0)


def _set(builder, settings) -> None:
    if _X86:
        place = cgutils.alloca_once(builder, _int)
        builder.store(builder.trunc(settings, _int), place)
        _control(builder, "llvm.x86.sse.ldmxcsr", place)
    elif _ARM:
        builder.call(cgutils.get_or_insert_function(builder.module, _of_long, "llvm.aarch64.set.fpcr"), [settings])


def _control(builder, name: str, place) -> None:
    function = cgutils.get_or_insert_function(builder.module, _of_address, name)
    builder.call(function, [builder.bitcast(place, _address)])
