"""A case: calls that are timed against each other in one process, and what no call could do it without."""

from __future__ import annotations

import gc
import math
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .device import Device
from .timing import Times, measure, ratio

KERNEL = "kernel"
Calls = dict[str, Callable[[], object]]


class Work(NamedTuple):
    """The least that a call must do: bytes of tensors read once and written once, exponentials, multiplications' flops."""

    bytes: float = 0
    exponentials: float = 0
    flops: float = 0


class Case(NamedTuple):
    """name: what is computed on what. build: the calls by name, KERNEL first. tokens: that a call treats."""

    name: str
    build: Callable[[Device], Calls]
    work: Work
    tokens: int


def rows_of(case: Case, device: Device) -> Iterator[dict]:
    """A row a call: times, memory and ratio to the kernel, or the error that it raised."""
    fixed = {"case": case.name, "tokens": case.tokens, **case.work._asdict()}
    try:
        calls = case.build(device)
    except Exception as error:
        yield fixed | {"what": KERNEL, "error": reason(error)}
        return
    found = measure(calls, device)
    del calls
    timed = {name: times for name, times in found.items() if isinstance(times, Times)}
    for name, times in found.items():
        row = fixed | {"what": name}
        if not isinstance(times, Times):
            yield row | {"error": reason(times)}
            continue
        row |= {"ms": round(times.median, 4), "spread": round(times.spread, 3), "rounds": len(times.milliseconds)}
        if times.host_milliseconds:
            row["host_ms"] = round(statistics.median(times.host_milliseconds), 4)
        row |= {"megabytes": times.megabytes, "first_call_s": round(times.first_seconds, 2)}
        if KERNEL in timed and name != KERNEL:
            row["times_kernel"] = round(ratio(timed, name, KERNEL), 3)
        yield row
    found.clear()
    timed.clear()
    gc.collect()
    if device.kind == "cuda":
        torch.cuda.empty_cache()


def reason(error: Exception) -> str:
    """The error's kind and first line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]


def forward(call: Callable[..., object], given: dict, **options) -> object:
    with torch.no_grad():
        return call(**given, **options)


def first(result) -> Tensor:
    """Of an output and states the output."""
    return result[0] if isinstance(result, tuple) else result


def outputs(result) -> list[Tensor]:
    """Those that gradients come from: all of a list, of an output and states the output."""
    return result if isinstance(result, list) else [first(result)]


def step(call: Callable[..., object], given: dict, **options) -> tuple[Tensor, ...]:
    """Forward and backward, gradients of everything given."""
    out = outputs(call(**given, **options))
    return torch.autograd.grad(out, list(given.values()), [torch.ones_like(t) for t in out])


def backward(call: Callable[..., object], given: dict, **options) -> Callable[[], object]:
    """A call of the backward pass alone; the first one runs forward."""
    made: list[list[Tensor]] = []

    def run():
        if not made:
            out = outputs(call(**given, **options))
            made.extend((out, [torch.ones_like(t) for t in out]))
        return torch.autograd.grad(made[0], list(given.values()), made[1], retain_graph=True)

    return run


def passes(call: Callable[..., object], given: dict, which: str, **options) -> Callable[[], object]:
    """`which`: "forward", "backward" or "forward+backward"."""
    if which == "backward":
        return backward(call, given, **options)
    return partial({"forward": forward, "forward+backward": step}[which], call, given, **options)


def numbers(
    device: Device, *shape: int, dtype: torch.dtype = torch.bfloat16, scale: float = 1.0, shift: float = 0.0
) -> Tensor:
    """Random ones that want a gradient, the same in every run."""
    g = None if device.kind == "meta" else torch.Generator(device.name).manual_seed(math.prod(shape) % 2**31)
    values = torch.randn(shape, device=device.name, generator=g) * scale + shift
    return values.to(dtype).requires_grad_()


def flash_attention(device: Device, batch: int, length: int, width: int, which: str, headdim: int = 64):
    """PyTorch's FlashAttention, causal, with heads of 64 numbers in as many channels."""
    heads = max(1, width // headdim)
    q, k, v = (numbers(device, batch, heads, length, min(headdim, width)) for _ in range(3))

    def attend(query, key, value):
        if device.kind != "cuda":
            return F.scaled_dot_product_attention(query, key, value, is_causal=True)
        from torch.nn.attention import SDPBackend, sdpa_kernel

        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            return F.scaled_dot_product_attention(query, key, value, is_causal=True)

    return passes(attend, {"query": q, "key": k, "value": v}, which)
