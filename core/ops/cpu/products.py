"""Products of small matrices that lie in a core's first caches: sums stay in registers, nothing is copied or called.

Addresses and strides are in bytes. Rows of the second factor and of the sums are whole vectors; the first factor may lie either
way.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .lanes import WIDTH, lane_type, multiply_add, splatted
from .team import inlined

# Rows and vectors of the sums that are kept in registers: sixteen with AVX-512, eight elsewhere. Each step of the depth reads a
# factor of each row and a vector of each column. 4 x 4, 6 x 4 and 8 x 2 are alike (Intel Xeon), nine tenths of the BLAS's speed.
ROWS, VECTORS = (4, 4) if WIDTH == 16 else (4, 2)
ROW = 4 * WIDTH


def _block(rows: int, vectors: int):
    """c += a b for so many rows and vectors, a row of b after the other."""
    kind, number = lane_type, ir.FloatType()

    @intrinsic
    def run(typingctx, a, a_row, a_step, b, b_step, c, c_row, depth):
        def build(context, builder, signature, arguments):
            a, a_row, a_step, b, b_step, c, c_row, depth = arguments

            def at(address, *parts):
                for stride, times in parts:
                    address = builder.add(address, builder.mul(stride, times))
                return address

            def pointer(address, pointee):
                return builder.inttoptr(address, pointee.as_pointer())

            long = a.type
            places = [
                pointer(at(c, (c_row, long(i)), (long(ROW), long(v))), kind)
                for i in range(rows)
                for v in range(vectors)
            ]
            sums = [cgutils.alloca_once_value(builder, builder.load(place, align=4)) for place in places]
            with cgutils.for_range(builder, depth) as loop:
                here = at(b, (b_step, loop.index))
                row = [builder.load(pointer(at(here, (long(ROW), long(v))), kind), align=4) for v in range(vectors)]
                factors = at(a, (a_step, loop.index))
                for i in range(rows):
                    factor = builder.load(pointer(at(factors, (a_row, long(i))), number), align=4)
                    for v in range(vectors):
                        total = sums[i * vectors + v]
                        builder.store(
                            multiply_add(builder, splatted(builder, factor), row[v], builder.load(total)), total
                        )
            for total, place in zip(sums, places, strict=True):
                builder.store(builder.load(total), place, align=4)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 8), build

    return run


_whole, _one_row, _one_vector, _one_of_each = _block(ROWS, VECTORS), _block(1, VECTORS), _block(ROWS, 1), _block(1, 1)


@inlined
def add_product(a, a_row, a_step, b, b_step, c, c_row, rows, vectors, depth):
    """c += a b.

    a: (rows, depth) float32, numbers `a_row` and `a_step` apart. b: (depth, vectors), rows `b_step` apart. c: (rows, vectors).
    """
    many = vectors - vectors % VECTORS
    for row in range(0, rows - rows % ROWS, ROWS):
        at, to = a + row * a_row, c + row * c_row
        for vector in range(0, many, VECTORS):
            _whole(at, a_row, a_step, b + ROW * vector, b_step, to + ROW * vector, c_row, depth)
        for vector in range(many, vectors):
            _one_vector(at, a_row, a_step, b + ROW * vector, b_step, to + ROW * vector, c_row, depth)
    for row in range(rows - rows % ROWS, rows):
        at, to = a + row * a_row, c + row * c_row
        for vector in range(0, many, VECTORS):
            _one_row(at, a_row, a_step, b + ROW * vector, b_step, to + ROW * vector, c_row, depth)
        for vector in range(many, vectors):
            _one_of_each(at, a_row, a_step, b + ROW * vector, b_step, to + ROW * vector, c_row, depth)
