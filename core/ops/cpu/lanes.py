"""Float32 lanes as a Numba type: what the CPU kernels compute with.

A lane is a channel. Writing vectors out, instead of leaving loops to the compiler's vectoriser, makes every kernel's machine
code what it looks like: one register an operation (two NEON ones), no aliasing checks, no scalar tails. There are sixteen
lanes where the processor has AVX-512 and eight elsewhere: with two AVX2 registers a vector, the constants of `exp2` no
longer fit and are read again at every use. Memory is addressed in bytes (int64), floats are unaligned.
"""

from __future__ import annotations

import operator

from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba.core import cgutils, types
from numba.extending import intrinsic, models, overload, register_model

WIDTH = 16 if get_host_cpu_features().get("avx512f") else 8
# AVX-512 takes apart and puts together exponents in one instruction each.
SCALES = WIDTH == 16 and bool(get_host_cpu_features().get("avx512dq"))

_float, _int, _long = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_short = ir.IntType(16)
lane_type, _ints, _shorts = (ir.VectorType(kind, WIDTH) for kind in (_float, _int, _short))


class LanesType(types.Type):
    def __init__(self):
        super().__init__(name="Lanes")


lanes = LanesType()


@register_model(LanesType)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, lane_type)


def _constant(value: float | int, vector=lane_type):
    return ir.Constant(vector, [value] * WIDTH)


def _binary(name: str):
    @intrinsic
    def run(typingctx, a, b):
        def build(context, builder, signature, arguments):
            return getattr(builder, name)(*arguments)

        return lanes(lanes, lanes), build

    return run


_add, _subtract, _multiply, _divide = (_binary(name) for name in ("fadd", "fsub", "fmul", "fdiv"))


def _operate(symbol, run):
    @overload(symbol)
    def _(a, b):
        if isinstance(a, LanesType) and isinstance(b, LanesType):
            return lambda a, b: run(a, b)


for _symbol, _run in (
    (operator.add, _add),
    (operator.sub, _subtract),
    (operator.mul, _multiply),
    (operator.truediv, _divide),
):
    _operate(_symbol, _run)


@intrinsic
def splat(typingctx, value):
    """One float32 in all lanes."""

    def build(context, builder, signature, arguments):
        return splatted(builder, arguments[0])

    return lanes(types.float32), build


def splatted(builder, value):
    first = builder.insert_element(ir.Constant(lane_type, ir.Undefined), value, _int(0))
    return builder.shuffle_vector(first, ir.Constant(lane_type, ir.Undefined), ir.Constant(_ints, [0] * WIDTH))


@intrinsic
def load(typingctx, address):
    """The floats of all lanes at a byte address."""

    def build(context, builder, signature, arguments):
        return builder.load(builder.inttoptr(arguments[0], lane_type.as_pointer()), align=4)

    return lanes(types.int64), build


def _widened(builder, halves):
    """bfloat16 numbers, which are the upper halves of floats, as floats."""
    return builder.bitcast(builder.shl(builder.zext(halves, _ints), _constant(16, _ints)), lane_type)


@intrinsic
def load_bfloat16(typingctx, address):
    """As many bfloat16 numbers as there are lanes, at a byte address."""

    def build(context, builder, signature, arguments):
        return _widened(builder, builder.load(builder.inttoptr(arguments[0], _shorts.as_pointer()), align=2))

    return lanes(types.int64), build


@intrinsic
def read_bfloat16(typingctx, address):
    """The bfloat16 number at a byte address, as a float32."""

    def build(context, builder, signature, arguments):
        half = builder.load(builder.inttoptr(arguments[0], _short.as_pointer()), align=2)
        return builder.bitcast(builder.shl(builder.zext(half, _int), _int(16)), _float)

    return types.float32(types.int64), build


@intrinsic
def store(typingctx, address, value):
    """Write all lanes to a byte address."""

    def build(context, builder, signature, arguments):
        builder.store(arguments[1], builder.inttoptr(arguments[0], lane_type.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(types.int64, lanes), build


def _read(kind, pointee):
    @intrinsic
    def run(typingctx, address):
        def build(context, builder, signature, arguments):
            return builder.load(builder.inttoptr(arguments[0], pointee.as_pointer()), align=4)

        return kind(types.int64), build

    return run


def _write(kind, pointee):
    @intrinsic
    def run(typingctx, address, value):
        def build(context, builder, signature, arguments):
            builder.store(arguments[1], builder.inttoptr(arguments[0], pointee.as_pointer()), align=4)
            return context.get_dummy_value()

        return types.void(types.int64, kind), build

    return run


read_float, write_float = _read(types.float32, _float), _write(types.float32, _float)
read_int, read_long = _read(types.int32, _int), _read(types.int64, _long)


@intrinsic
def take_ticket(typingctx, address):
    """The int64 counter at a byte address, which grows by one atomically: how threads share work."""

    def build(context, builder, signature, arguments):
        return builder.atomic_rmw("add", builder.inttoptr(arguments[0], _long.as_pointer()), _long(1), "monotonic")

    return types.int64(types.int64), build


def _prefetch(write: int):
    @intrinsic
    def run(typingctx, address):
        def build(context, builder, signature, arguments):
            pointer = ir.IntType(8).as_pointer()
            kind = ir.FunctionType(ir.VoidType(), [pointer, _int, _int, _int])
            function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
            builder.call(function, [builder.inttoptr(arguments[0], pointer), _int(write), _int(3), _int(1)])
            return context.get_dummy_value()

        return types.void(types.int64), build

    return run


# Ask for the cache line at a byte address, to read or to write; any address will do.
prefetch, prefetch_to_write = _prefetch(0), _prefetch(1)


def multiply_add(builder, a, b, c):
    kind = ir.FunctionType(lane_type, [lane_type] * 3)
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.v{WIDTH}f32"), [a, b, c])


@intrinsic
def fma(typingctx, a, b, c):
    """a * b + c, in one rounding where the processor has it."""

    def build(context, builder, signature, arguments):
        return multiply_add(builder, *arguments)

    return lanes(lanes, lanes, lanes), build


@intrinsic
def sum_lanes(typingctx, value):
    """Sum of all lanes, in pairs of halves: a fixed order."""

    def build(context, builder, signature, arguments):
        vector, width = arguments[0], WIDTH
        while width > 1:
            width //= 2
            undefined = ir.Constant(vector.type, ir.Undefined)
            low, high = (
                builder.shuffle_vector(
                    vector, undefined, ir.Constant(ir.VectorType(_int, width), list(range(start, start + width)))
                )
                for start in (0, width)
            )
            vector = builder.fadd(low, high)
        return builder.extract_element(vector, _int(0))

    return types.float32(lanes), build


@intrinsic
def add_sums(typingctx, address, a, b, c, d):
    """Add the sums of all lanes of four vectors, each in a fixed order, to the four floats at a byte address."""

    def build(context, builder, signature, arguments):
        address, *given = arguments
        four = ir.VectorType(_float, 4)

        def picked(x, y, places):
            """In each group of four lanes those of x, 0 to 3, and of y, 4 to 7."""
            picks = [group + place + (WIDTH - 4) * (place > 3) for group in range(0, WIDTH, 4) for place in places]
            return builder.shuffle_vector(x, y, ir.Constant(_ints, picks))

        def paired(x, y, first, second):
            return builder.fadd(picked(x, y, first), picked(x, y, second))

        # Groups of four lanes: (a, b, a, b), (c, d, c, d), then (a, b, c, d), then the groups themselves.
        ab, cd = (paired(*pair, (0, 4, 1, 5), (2, 6, 3, 7)) for pair in (given[:2], given[2:]))
        total, width = paired(ab, cd, (0, 1, 4, 5), (2, 3, 6, 7)), WIDTH
        while width > 4:
            width //= 2
            low, high = (
                builder.shuffle_vector(
                    total, total, ir.Constant(ir.VectorType(_int, width), list(range(start, start + width)))
                )
                for start in (0, width)
            )
            total = builder.fadd(low, high)
        pointer = builder.inttoptr(address, four.as_pointer())
        builder.store(builder.fadd(builder.load(pointer, align=4), total), pointer, align=4)
        return context.get_dummy_value()

    return types.void(types.int64, lanes, lanes, lanes, lanes), build


# 2**f, minimax in relative error with the constant term fixed at 1: on [-1/2, 1/2], 9.2e-8 before rounding, and on [0, 1], 8.3e-8.
_EXP2 = (0.6931470036506653, 0.24022242426872253, 0.05550733581185341, 0.009671512991189957, 0.001326472731307149)
_EXP2_ABOVE = (0.6931513118046154, 0.24016445015498422, 0.05579991310400359, 0.009017030322167052, 0.001867130069978145)
_ROUND = 12582912.0  # 1.5 * 2**23: adding it leaves the nearest integer in the low bits
_FLOOR, _ROUNDING_OF_THREAD = 1, 4


@intrinsic
def exp2(typingctx, value):
    """2 ** value; relative error below 1.5e-7, NaN stays NaN.

    Below -126 it is a subnormal number, 2**-126 or 0, above 127 at least 2**127.
    """

    def build(context, builder, signature, arguments):
        return (_exp2_scaled if SCALES else _exp2_by_bits)(builder, arguments[0])

    return lanes(lanes), build


def _exp2_by_bits(builder, x):
    """The integer part goes straight into the exponent bits of a polynomial in the rest."""
    for relation, bound in (("<", -126.0), (">", 127.0)):
        limit = _constant(bound)
        x = builder.select(builder.fcmp_ordered(relation, x, limit), limit, x)
    rounded = builder.fadd(x, _constant(_ROUND))
    f = builder.fsub(x, builder.fsub(rounded, _constant(_ROUND)))
    p = _polynomial(builder, (1.0, *_EXP2), f)
    shifted = builder.shl(builder.bitcast(rounded, _ints), _constant(23, _ints))
    return builder.bitcast(builder.add(builder.bitcast(p, _ints), shifted), lane_type)


def _exp2_scaled(builder, x):
    """A polynomial in x - floor(x), scaled by 2 ** floor(x): 7 instructions where the other way takes 12."""
    fraction = _avx512(builder, "reduce", x, _int(_FLOOR), x)
    return _avx512(builder, "scalef", _polynomial(builder, (1.0, *_EXP2_ABOVE), fraction), x, x)


def _polynomial(builder, coefficients, x):
    p = _constant(coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        p = multiply_add(builder, p, x, _constant(coefficient))
    return p


def _avx512(builder, name: str, *arguments):
    """One of AVX-512's instructions on all lanes."""
    arguments = [*arguments, ir.Constant(_short, -1), _int(_ROUNDING_OF_THREAD)]
    kind = ir.FunctionType(lane_type, [argument.type for argument in arguments])
    return builder.call(
        cgutils.get_or_insert_function(builder.module, kind, f"llvm.x86.avx512.mask.{name}.ps.512"), arguments
    )


@intrinsic
def reciprocal(typingctx, value):
    """1 / value to two units in the last place, for numbers from 2**-126 to 2**127; NaN stays NaN.

    A division keeps a core's one divider busy for as long as 30 other instructions take.
    """

    def build(context, builder, signature, arguments):
        v, one = arguments[0], _constant(1.0)
        if WIDTH != 16:
            return builder.fdiv(one, v)
        kind = ir.FunctionType(lane_type, [lane_type, lane_type, _short])
        estimate = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx512.rcp14.ps.512")
        r = builder.call(estimate, [v, _constant(0.0), ir.Constant(_short, -1)])
        return multiply_add(builder, r, multiply_add(builder, builder.fneg(v), r, one), r)

    return lanes(lanes), build


@intrinsic
def at_most(typingctx, value, limit):
    """Lane by lane the smaller one; where value is NaN, NaN."""

    def build(context, builder, signature, arguments):
        value, limit = arguments
        return builder.select(builder.fcmp_ordered(">", value, limit), limit, value)

    return lanes(lanes, lanes), build


@intrinsic
def select_positive(typingctx, condition, yes, no):
    """Lane by lane `yes` where condition > 0, else `no`."""

    def build(context, builder, signature, arguments):
        condition, yes, no = arguments
        return builder.select(builder.fcmp_ordered(">", condition, _constant(0.0)), yes, no)

    return lanes(lanes, lanes, lanes), build


def _masked(name: str, result, parameters, kind=lane_type, suffix="f32", align=4):
    pointer = kind.as_pointer()
    mask = ir.VectorType(ir.IntType(1), WIDTH)

    def call(builder, count, address, value):
        kinds = [{"pointer": pointer, "align": _int, "mask": mask, "value": kind}[p] for p in parameters]
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(result, kinds), f"llvm.masked.{name}.v{WIDTH}{suffix}.p0"
        )
        limit = builder.insert_element(ir.Constant(_ints, ir.Undefined), builder.trunc(count, _int), _int(0))
        limit = builder.shuffle_vector(limit, ir.Constant(_ints, ir.Undefined), _constant(0, _ints))
        within = builder.icmp_signed("<", ir.Constant(_ints, list(range(WIDTH))), limit)
        given = {"pointer": builder.inttoptr(address, pointer), "align": _int(align), "mask": within, "value": value}
        return builder.call(function, [given[p] for p in parameters])

    return call


_masked_load = _masked("load", lane_type, ("pointer", "align", "mask", "value"))
_masked_load_shorts = _masked("load", _shorts, ("pointer", "align", "mask", "value"), _shorts, "i16", 2)
_masked_store = _masked("store", ir.VoidType(), ("value", "pointer", "align", "mask"))


@intrinsic
def load_some(typingctx, address, count):
    """The first `count` floats at a byte address, zero in the other lanes; nothing past them is read."""

    def build(context, builder, signature, arguments):
        return _masked_load(builder, arguments[1], arguments[0], _constant(0.0))

    return lanes(types.int64, types.int64), build


@intrinsic
def load_some_bfloat16(typingctx, address, count):
    """As load_some, of bfloat16 numbers."""

    def build(context, builder, signature, arguments):
        return _widened(builder, _masked_load_shorts(builder, arguments[1], arguments[0], _constant(0, _shorts)))

    return lanes(types.int64, types.int64), build


@intrinsic
def store_some(typingctx, address, value, count):
    """Write the first `count` lanes to a byte address."""

    def build(context, builder, signature, arguments):
        _masked_store(builder, arguments[2], arguments[0], arguments[1])
        return context.get_dummy_value()

    return types.void(types.int64, lanes, types.int64), build
