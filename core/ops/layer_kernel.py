"""Running a kernel of whole layers, whose records lie one behind the other, for one token on the CPU."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .one_token import contiguous_as
from .phases import give_way
from .team import Kernel

NO_NORM = (0, 0, 0, 0, 0)


class Layer(NamedTuple):
    """What the record of a layer is made from, besides its plan; addresses are int.

    enter, norm_eps: the fields of residual_norm.py. x: the mixer's input. weights, states: as given. after: states to
    write. memory: scratch. out: the mixer's output. more: how many layers follow.
    """

    enter: tuple[int, ...]
    norm_eps: float
    x: int
    weights: tuple
    states: tuple
    after: tuple
    memory: int
    out: int
    more: int


class LayerKernel:
    """A kernel and how its records come about.

    Args:
        plan: of x, weights, states: what follows from them, with team (threads), floats (of scratch memory), conv_shape
            and ssm_shape (of the states); None where the kernel does not know the case.
        record: of a plan and a Layer: the fields before give_way.
        kind: the record's dtype.
    """

    def __init__(self, kernel: Kernel, plan: Callable, record: Callable, kind: np.dtype):
        self.kernel, self.plan, self.record = kernel, plan, record
        self.counters = (0,) * sum(name.startswith(("begun", "done")) for name in kind.names)

    def step(self, x: Tensor, weights: tuple, states: tuple, in_place: bool) -> tuple[Tensor, tuple] | None:
        """One mixer."""
        plan = self.plan(x, weights, states)
        if plan is None or (in_place and any(state is None for state in states)):
            return None
        row, out = x.float().contiguous(), torch.empty(x.shape, dtype=torch.float32)
        memory = torch.empty(plan.floats, dtype=torch.float32)
        after = states if in_place else _new(plan)
        layer = Layer(NO_NORM, 0.0, row.data_ptr(), weights, states, after, memory.data_ptr(), out.data_ptr(), 0)
        record = array("q", (*self.record(plan, layer), give_way(), *self.counters))
        self.kernel.run(record.buffer_info()[0], plan.team)
        return out.to(x.dtype), after

    def steps(
        self, hidden: Tensor, weights: Sequence[tuple], norms: Sequence[tuple[Tensor, float]], states: Sequence[tuple]
    ) -> tuple[Tensor, Tensor, list[tuple]] | None:
        """The layers of a stack."""
        plans = [self.plan(hidden, *layer) for layer in zip(weights, states, strict=True)]
        if None in plans or not all(contiguous_as(norm, hidden.shape[2:], norm.dtype) for norm, _ in norms):
            return None
        first, afters = hidden.float().contiguous(), [_new(plan) for plan in plans]
        out, residual, normed = torch.empty((3, *hidden.shape), dtype=torch.float32).unbind()
        memory = torch.empty(max(plan.floats for plan in plans), dtype=torch.float32)
        places = (normed.data_ptr(), memory.data_ptr(), out.data_ptr())
        record, more, before = array("q"), len(plans), (first.data_ptr(), 0)
        for plan, w, (norm, eps), state, after in zip(plans, weights, norms, states, afters, strict=True):
            more -= 1
            enter = (*before, residual.data_ptr(), norm.data_ptr(), int(norm.dtype == torch.bfloat16))
            layer = Layer(enter, eps, places[0], w, state, after, *places[1:], more)
            record.extend((*self.record(plan, layer), give_way(), *self.counters))
            before = (places[2], residual.data_ptr())
        self.kernel.run(record.buffer_info()[0], plans[0].team)
        return out.to(hidden.dtype), residual, afters


def _new(plan) -> tuple[Tensor, Tensor]:
    return torch.empty(plan.conv_shape, dtype=torch.float32), torch.empty(plan.ssm_shape, dtype=torch.float32)


def state_fits(state: Tensor | None, shape: tuple[int, ...]) -> bool:
    """Whether a kernel may read the state: none, or a contiguous float32 one."""
    return state is None or contiguous_as(state, shape, torch.float32)


def addresses(*tensors: Tensor | None) -> list[int]:
    """Where each tensor's data lies; 0 for none."""
    return [0 if t is None else t.data_ptr() for t in tensors]


@lru_cache(256)
def bits(*values: float) -> tuple[int, ...]:
    """Each float64 as the int64 of the same bits."""
    return struct.unpack(f"{len(values)}q", struct.pack(f"{len(values)}d", *values))
