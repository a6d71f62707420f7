"""Running a kernel of whole layers, whose records lie one behind the other, for one token on the CPU."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from ..one_token import contiguous_as
from .calls import address, addresses, record, run, whole
from .memory import empty
from .phases import give_way
from .team import Kernel

# The fields of residual_norm.py where a mixer is called alone.
ALONE = {"hidden": 0, "residual": 0, "residual_after": 0, "norm_w": 0, "norm_half": 0, "norm_eps": 0}


class LayerKernel:
    """A kernel and how its records come about.

    Args:
        plan: of x, weights and states: what follows from their sizes, and the fields of the record that come from the
            weights; None where the kernel does not know the case. The former has team (threads), floats (of scratch memory),
            places (field -> where in it, in bytes), conv_shape and ssm_shape (of the states) and sizes (field -> value).
    """

    def __init__(self, kernel: Kernel, plan: Callable):
        self.kernel, self.plan = kernel, plan

    def step(self, x: Tensor, weights: tuple, states: tuple, in_place: bool) -> tuple[Tensor, tuple] | None:
        """One mixer."""
        found = self.plan(x, weights, states)
        if found is None or (in_place and any(state is None for state in states)):
            return None
        plan, shape = found[0], x.shape
        given, out, scratch = whole(x), empty(*shape), empty(plan.floats)
        after = states if in_place else _new(plan)
        ends = {"x": address("x", given, shape), "out": address("out", out, shape)}
        run(self.kernel, plan.team, self._record(*found, states, after, scratch, ALONE | ends, more=0))
        return out.to(x.dtype), after

    def steps(
        self, hidden: Tensor, weights: Sequence[tuple], norms: Sequence[tuple[Tensor, float]], states: Sequence[tuple]
    ) -> tuple[Tensor, Tensor, list[tuple]] | None:
        """The layers of a stack."""
        shape = hidden.shape
        found = [self.plan(hidden, *layer) for layer in zip(weights, states, strict=True)]
        normed = [_norm(*norm, shape[2:]) for norm in norms]
        if None in found or None in normed:
            return None
        plans = [plan for plan, _ in found]
        given, x, out, residual = whole(hidden), empty(*shape), empty(*shape), empty(*shape)
        scratch, afters = empty(max(plan.floats for plan in plans)), [_new(plan) for plan in plans]
        ends = {"x": address("x", x, shape), "out": address("out", out, shape)}
        ends["residual_after"] = address("residual_after", residual, shape)
        records, before, more = array("q"), (address("hidden", given, shape), 0), len(plans)
        for layer, norm, state, after in zip(found, normed, states, afters, strict=True):
            more -= 1
            ends |= norm | {"hidden": before[0], "residual": before[1]}
            records += self._record(*layer, state, after, scratch, ends, more)
            before = (ends["out"], ends["residual_after"])
        run(self.kernel, plans[0].team, records)
        return out.to(hidden.dtype), residual, afters

    def _record(self, plan, weights: dict[str, int], states, after, scratch: Tensor, ends: dict[str, int], more: int):
        """The record of a layer that `more` others follow; `ends` are the fields of what goes in and comes out."""
        begin = address("scratch", scratch, scratch.shape)
        return record(
            self.kernel, **plan.sizes, **weights, **ends,
            **{name: begin + place for name, place in plan.places.items()},
            conv_state=address("conv_state", states[0], plan.conv_shape),
            ssm_state=address("ssm_state", states[1], plan.ssm_shape),
            conv_after=address("conv_after", after[0], plan.conv_shape),
            ssm_after=address("ssm_after", after[1], plan.ssm_shape),
            enter=ends["hidden"] != 0, more=more, give_way=give_way(),
        )  # fmt: skip


def _norm(weight: Tensor, eps: float, shape: tuple[int, ...]) -> dict[str, int] | None:
    found = addresses(norm_w=(weight, shape, weight.dtype)) if weight.dtype in (torch.float32, torch.bfloat16) else None
    return None if found is None else found | {"norm_half": weight.dtype == torch.bfloat16, "norm_eps": bits(eps)}


def _new(plan) -> tuple[Tensor, Tensor]:
    return empty(*plan.conv_shape), empty(*plan.ssm_shape)


def state_fits(state: Tensor | None, shape: tuple[int, ...]) -> bool:
    """Whether a kernel may read the state: none, or a contiguous float32 one."""
    return state is None or contiguous_as(state, shape, torch.float32)


@lru_cache(256)
def bits(value: float) -> int:
    """A float64 as the int64 of the same bits."""
    return struct.unpack("q", struct.pack("d", value))[0]
