"""Running a kernel of whole layers, whose records lie one behind the other, for one token on the CPU."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from ..arguments import contiguous_as
from ..decoding import States
from .calls import address, addresses, record, run, whole
from .memory import empty
from .phases import give_way
from .team import Kernel

# The fields that each call fills; all others follow from a layer's weights and sizes.
FILLED = (
    "x", "out", "hidden", "residual", "residual_after", "norm_w", "norm_half", "norm_eps", "conv_state", "ssm_state", "conv_after",
    "ssm_after", "enter", "more",
)  # fmt: skip
KEPT_RECORDS = 4096


class Plan(NamedTuple):
    """What follows from a mixer's sizes.

    conv_shape, ssm_shape: of the states. places: field -> where in the scratch memory, in bytes; floats: of it. sizes: field ->
    value. team: threads.
    """

    conv_shape: tuple[int, ...]
    ssm_shape: tuple[int, ...]
    places: dict[str, int]
    floats: int
    sizes: dict[str, int]
    team: int


class LayerKernel:
    """A kernel and how its records come about.

    Args:
        plan: of x, weights and states: their Plan, the same object for the same sizes, and the fields of the record that come from
            the weights; None where the kernel does not know the case.
    """

    def __init__(self, kernel: Kernel, plan: Callable[..., tuple[Plan, dict[str, int]] | None]):
        self.kernel, self.plan, self._begun = kernel, plan, {}

    def decode(self, x: Tensor, weights: tuple, states: States, in_place: bool = False) -> tuple[Tensor, States] | None:
        """One mixer."""
        found = self.plan(x, weights, states)
        if found is None or (in_place and any(state is None for state in states)):
            return None
        plan, shape = found[0], x.shape
        given, out, scratch = whole(x), empty(*shape), empty(plan.floats)
        after = states if in_place else _new(plan)
        ends = {"x": address("x", given, shape), "out": address("out", out, shape)}
        run(self.kernel, plan.team, self._record(*found, states, after, scratch, ends, more=0))
        return out.to(x.dtype), after

    def decode_layers(
        self, hidden: Tensor, weights: Sequence[tuple], norms: Sequence[tuple[Tensor, float]], states: Sequence[States]
    ) -> tuple[Tensor, Tensor, list[States]] | None:
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
        ends |= {"residual_after": address("residual_after", residual, shape), "enter": 1}
        records, before, more = array("q"), (address("hidden", given, shape), 0), len(plans)
        for layer, norm, state, after in zip(found, normed, states, afters, strict=True):
            more -= 1
            ends |= norm | {"hidden": before[0], "residual": before[1]}
            records += self._record(*layer, state, after, scratch, ends, more)
            before = (ends["out"], ends["residual_after"])
        run(self.kernel, plans[0].team, records)
        return out.to(hidden.dtype), residual, afters

    def _record(
        self, plan: Plan, weights: dict[str, int], states: States, after: States, scratch: Tensor, ends: dict[str, int], more: int
    ) -> array:  # fmt: skip
        """The record of a layer that `more` others follow; `ends` are the fields of what goes in and comes out."""
        at, told = self._places, self._begin(plan, weights)[:]
        begin = address("scratch", scratch, scratch.shape)
        for field, place in plan.places.items():
            told[at[field]] = begin + place
        for field, value in ends.items():
            told[at[field]] = value
        told[at["conv_state"]] = address("conv_state", states[0], plan.conv_shape)
        told[at["ssm_state"]] = address("ssm_state", states[1], plan.ssm_shape)
        told[at["conv_after"]] = address("conv_after", after[0], plan.conv_shape)
        told[at["ssm_after"]] = address("ssm_after", after[1], plan.ssm_shape)
        told[at["more"]] = more
        return told

    def _begin(self, plan: Plan, weights: dict[str, int]) -> array:
        """A record without what each call fills: the same for every token, as long as the weights lie where they do."""
        key = (id(plan), *weights.values())
        found = self._begun.get(key)
        if found is None:
            empty_fields = dict.fromkeys((*FILLED, *plan.places), 0)
            found = record(self.kernel, **plan.sizes, **weights, **empty_fields, give_way=give_way()), plan
            if len(self._begun) >= KEPT_RECORDS:
                self._begun.clear()
            self._begun[key] = found  # with the plan: as long as it lives nothing else has its id
        return found[0]

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.kernel.kind.names)}


def _norm(weight: Tensor, eps: float, shape: tuple[int, ...]) -> dict[str, int] | None:
    found = addresses(norm_w=(weight, shape, weight.dtype)) if weight.dtype in (torch.float32, torch.bfloat16) else None
    return None if found is None else found | {"norm_half": weight.dtype == torch.bfloat16, "norm_eps": bits(eps)}


def _new(plan: Plan) -> States:
    return empty(*plan.conv_shape), empty(*plan.ssm_shape)


def state_fits(state: Tensor | None, shape: tuple[int, ...]) -> bool:
    """Whether a kernel may read the state: none, or a contiguous float32 one."""
    return state is None or contiguous_as(state, shape, torch.float32)


@lru_cache(256)
def bits(value: float) -> int:
    """A float64 as the int64 of the same bits."""
    return struct.unpack("q", struct.pack("d", value))[0]
