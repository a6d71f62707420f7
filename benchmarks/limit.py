"""The selective scan on the CPU against what the processor could do at best: bytes through memory, exponentials, arithmetic.

Of each state at each step, forward wants one exponential and four other multiplications or multiply-adds: delta A, delta x B,
the state, the output. Backward computes the exponential, delta A and the state again, then, with q the gradient of the state and k
what it carried over: q itself, dB, dC, what is carried further back, q k, dA, and what goes to delta through the decay and through
the input: eleven. Exponentials and these share the same units of the processor, so that their times add up.
"""

from __future__ import annotations

import time
from functools import partial

import torch

from ..core.ops.cpu.calls import address, record, run
from ..core.ops.cpu.lanes import WIDTH
from ..core.ops.cpu.team import Kernel
from .cpu_limit_kernels import PER_ITEM, VECTORS, exponentials, multiply_adds
from .operators import CHANNELS, STATES, forward, forward_backward, scan_arguments
from .timing import compare, row

ITEMS, COPIED = 256, 64 << 20
# Multiply-adds of a state's step beside its exponential.
FORWARD, BACKWARD = 4, 11
# (length, channels): narrow layers, whose rows stay in the cache, and wide ones.
SIZES = ((2048, 128), (1024, 384), (1024, CHANNELS), (8192, CHANNELS))


def a_second(kernel: Kernel) -> float:
    """What all threads do together, with nothing else to do: the best of some rounds."""
    x = -torch.rand(ITEMS, WIDTH * VECTORS, device="cpu")
    out = torch.empty_like(x)

    def once() -> None:
        ends = {"x": address("x", x, x.shape), "out": address("out", out, x.shape)}
        run(kernel, ITEMS, record(kernel, items=ITEMS, **ends))

    return ITEMS * PER_ITEM / _best(once)


def bytes_a_second() -> float:
    """Read and written, of a copy of more than a cache holds."""
    source = torch.ones(COPIED // 4, device="cpu")
    target = torch.empty_like(source)
    return 2 * COPIED / _best(lambda: target.copy_(source))


def limit_suite(device: str):
    """Time of the scan over the longer of: all it must read and write at the speed of a copy; all it must compute."""
    if device != "cpu":
        return
    rates = {"bytes_a_second": bytes_a_second(), "exponentials_a_second": a_second(exponentials)}
    rates["multiply_adds_a_second"] = a_second(multiply_adds)
    for length, channels in SIZES:
        given = scan_arguments(length, channels=channels)
        for what, once in (("forward", forward), ("forward+backward", forward_backward)):
            seconds = _limits(length, channels, rates, backward=once is forward_backward)
            bound = max(seconds, key=seconds.get)
            measured = compare({"scan": partial(once, given)}, rounds=25)
            entry = row(
                "limit", f"{what}, length {length}, {channels} channels, {STATES} states", measured, "scan", "scan"
            )
            best = measured.best("scan")
            yield entry | {
                "against": f"the processor's limit ({bound})", "ratio": round(best / seconds[bound], 3), "ms": round(1e3 * best, 3),
                "against_ms": round(1e3 * seconds[bound], 3), **{f"{name}_ms": round(1e3 * s, 3) for name, s in seconds.items()},
                **{name: round(rate) for name, rate in rates.items()},
            }  # fmt: skip


def _limits(length: int, channels: int, rates: dict[str, float], backward: bool) -> dict[str, float]:
    """Seconds at the processor's rates.

    Rows are those of x, delta, z and the output; then the output before the gate, the states that are kept (one in sixteen,
    sixteen a channel), both read again with the others, and the gradients. Beside the decays', exponentials are those of the
    step's softplus and the gate, forward, and their slopes.
    """
    passes, rows, others, adds = (2, 15, 5, FORWARD + BACKWARD) if backward else (1, 4, 2, FORWARD)
    moved = 4 * length * (rows * channels + 2 * passes * STATES) / rates["bytes_a_second"]
    raised = length * channels * (passes * STATES + others) / rates["exponentials_a_second"]
    added = length * channels * STATES * adds / rates["multiply_adds_a_second"]
    return {"bytes": moved, "exponentials": raised, "arithmetic": raised + added}


def _best(once, rounds: int = 15) -> float:
    once()
    found = []
    for _ in range(rounds):
        begin = time.perf_counter()
        once()
        found.append(time.perf_counter() - begin)
    return min(found)
