"""Lanes that change places: within a vector, where neighbours are pairs (0, 1), (2, 3), ... as complex numbers lie in memory, and
between as many vectors as each has lanes.
"""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from .lanes import WIDTH, lane_type, lanes
from .team import inlined


def _shuffle(sources: Sequence[int]):
    places = ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), list(sources))

    @intrinsic
    def run(typingctx, value):
        def build(context, builder, signature, arguments):
            return builder.shuffle_vector(arguments[0], ir.Constant(arguments[0].type, ir.Undefined), places)

        return lanes(lanes), build

    return run


# (1, 0, 3, 2, ...): each lane has its neighbour's value.
swap_neighbours = _shuffle(lane ^ 1 for lane in range(WIDTH))
# (0, 0, 1, 1, ...): the first half, each of it twice.
twice_each = _shuffle(lane // 2 for lane in range(WIDTH))
# (0, 2, 4, ...), and after half of the lanes again.
every_other = _shuffle(2 * lane % WIDTH for lane in range(WIDTH))


@intrinsic
def _transpose_block(typingctx, source, row, to, to_row):
    """WIDTH rows of WIDTH floats, so many bytes apart, to where their columns become rows."""

    def build(context, builder, signature, arguments):
        source, row, to, to_row = arguments

        def place(start, stride, number):
            address = builder.add(start, builder.mul(stride, stride.type(number)))
            return builder.inttoptr(address, lane_type.as_pointer())

        vectors = [builder.load(place(source, row, i), align=4) for i in range(WIDTH)]
        step = WIDTH // 2
        while step:
            # Of each pair of vectors, the lanes that stand `step` apart change places across it.
            first = [lane if not lane & step else WIDTH + lane - step for lane in range(WIDTH)]
            second = [lane + step if not lane & step else WIDTH + lane for lane in range(WIDTH)]
            for i in range(WIDTH):
                if not i & step:
                    pair = vectors[i], vectors[i + step]
                    for place_of, lanes_of in ((i, first), (i + step, second)):
                        chosen = ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), lanes_of)
                        vectors[place_of] = builder.shuffle_vector(*pair, chosen)
            step //= 2
        for i, vector in enumerate(vectors):
            builder.store(vector, place(to, to_row, i), align=4)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), build


@inlined
def transpose(source, row, to, to_row, rows, columns):
    """(rows, columns) floats to (columns, rows), both numbers multiples of WIDTH; rows are `row` and `to_row` bytes apart."""
    for i in range(0, rows, WIDTH):
        for j in range(0, columns, WIDTH):
            _transpose_block(source + i * row + 4 * j, row, to + j * to_row + 4 * i, to_row)
