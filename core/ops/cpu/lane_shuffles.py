"""Lanes that change places: neighbours are pairs (0, 1), (2, 3), ..., as complex numbers lie in memory."""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir
from numba.extending import intrinsic

from .lanes import WIDTH, lanes


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
