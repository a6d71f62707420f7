"""Canaries round the memory of kernels: what they catch."""

import ctypes
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from polymamba.core.ops.causal_conv1d import causal_conv1d
from polymamba.core.ops.cpu import memory
from polymamba.core.ops.cpu.calls import KernelCall, address, rows, whole
from polymamba.core.ops.cpu.guard import MARGIN, Guard, OverrunError
from polymamba.core.ops.selective_scan import selective_scan

KIND = np.dtype([(name, np.int64) for name in ("items", "out", "x", "scratch", "scratch_bytes", "tickets", "slots")])


class StandIn:
    """In a kernel's place: writes one number at a distance in bytes from a field's tensor."""

    kind = KIND

    def __init__(self, field: str, distance: int):
        self.field, self.distance = field, distance

    def run(self, argument: int, items: int) -> None:
        at = KIND.fields[self.field][1]
        target = ctypes.c_int64.from_address(argument + at).value + self.distance
        ctypes.c_float.from_address(target).value = 1.0


@pytest.fixture
def guard(monkeypatch):
    monkeypatch.setattr(memory, "guard", Guard())
    return memory.guard


def call() -> tuple[KernelCall, torch.Tensor]:
    made = KernelCall(KIND, {"out": (3, 5), "x": (3, 5)})
    out = memory.empty(3, 5)
    made.set(items=1)
    made.point(out=out, x=whole(torch.ones(3, 5)))
    return made, out


@pytest.mark.parametrize("field", ["out", "x", "scratch"])
@pytest.mark.parametrize("distance", [-4, -MARGIN, "end", "far"])
def test_an_overrun_is_found_and_named(guard, field, distance):
    made, _ = call()
    size = {"out": 60, "x": 60, "scratch": 256}[field]
    distance = {"end": size, "far": size + MARGIN - 4}.get(distance, distance)
    with pytest.raises(OverrunError, match=rf"(before its beginning|past its end): .*\b{field}\b"):
        made.run(StandIn(field, distance), 8)


def test_what_stays_inside_passes(guard):
    made, out = call()
    made.run(StandIn("out", 56), 8)
    assert out[2, 4] == 1
    assert out.isnan().sum() == 14


def test_memory_that_another_call_still_shows_is_looked_at_too(guard):
    kept = memory.empty(4)
    made, _ = call()
    beyond = kept.data_ptr() + 16 - address("out", made.alive[0], (3, 5))
    with pytest.raises(OverrunError, match="a tensor of another call"):
        made.run(StandIn("out", beyond), 8)


@pytest.mark.parametrize(
    "make", [lambda t: t[:, 1:, ::2], lambda t: t[:1].expand(3, -1, -1), lambda t: t[:0], lambda t: t]
)
def test_inputs_are_copied_with_their_strides(guard, make):
    tensor = make(torch.randn(2, 5, 6).transpose(1, 2).contiguous().transpose(1, 2))
    made = guard.copy(tensor)
    assert made.stride() == tensor.stride()
    assert torch.equal(made, tensor)
    assert made.data_ptr() != tensor.data_ptr() or not tensor.numel()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_unwritten_memory_is_nan(guard, dtype):
    assert guard.empty((3, 7), dtype).isnan().all()


def test_results_are_the_same_between_canaries(guard):
    torch.manual_seed(0)
    x, A, B = torch.randn(2, 19, 11, requires_grad=True), -torch.rand(11, 3), torch.randn(2, 19, 3)

    def compute():
        y = selective_scan(causal_conv1d(x, A), x, A, B, B, z=x, delta_softplus=True)
        return y, *torch.autograd.grad(y.square().sum(), x)

    found = compute()
    memory.guard = None
    for one, other in zip(found, compute(), strict=True):
        assert torch.equal(one, other)


def test_the_variable_turns_it_on():
    code = "from polymamba.core.ops.cpu import memory; print(type(memory.guard).__name__)"
    for value, expected in (("1", "Guard"), ("0", "NoneType")):
        done = subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"POLYMAMBA_GUARD": value}, capture_output=True, text=True
        )
        assert done.stdout.strip() == expected


def test_without_it_nothing_is_copied():
    if memory.guard is None:
        tensor = torch.zeros(2, 3)
        assert rows(tensor) is tensor
        assert whole(tensor) is tensor
