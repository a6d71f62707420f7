"""The selective scan on the CPU against what the processor could do at best: bytes through memory, and exponentials."""

from __future__ import annotations

import time
from functools import partial

import torch

from ..core.ops.cpu.calls import address, record, run
from ..core.ops.cpu.lanes import WIDTH
from .cpu_limit_kernels import PER_ITEM, VECTORS, exponentials
from .operators import CHANNELS, STATES, forward, forward_backward, scan_arguments
from .timing import compare, row

ITEMS, COPIED = 256, 64 << 20
# (length, channels): narrow layers, whose rows stay in the cache, and wide ones.
SIZES = ((2048, 128), (1024, 384), (1024, CHANNELS), (8192, CHANNELS))


def exponentials_a_second() -> float:
    """What all threads do together, with nothing else to do: the best of some rounds."""
    x = -torch.rand(ITEMS, WIDTH * VECTORS, device="cpu")
    out = torch.empty_like(x)

    def once() -> None:
        ends = {"x": address("x", x, x.shape), "out": address("out", out, x.shape)}
        run(exponentials, ITEMS, record(exponentials, items=ITEMS, **ends))

    return ITEMS * PER_ITEM / _best(once)


def bytes_a_second() -> float:
    """Read and written, of a copy of more than a cache holds."""
    source = torch.ones(COPIED // 4, device="cpu")
    target = torch.empty_like(source)
    return 2 * COPIED / _best(lambda: target.copy_(source))


def limit_suite(device: str):
    """Time of the scan over the longer of: all it must read and write at the speed of a copy, its exponentials at theirs."""
    if device != "cpu":
        return
    rates = {"bytes_a_second": bytes_a_second(), "exponentials_a_second": exponentials_a_second()}
    for length, channels in SIZES:
        given = scan_arguments(length, channels=channels)
        for what, once, rows, others in (("forward", forward, 4, 2), ("forward+backward", forward_backward, 15, 5)):
            # Rows are those of x, delta, z and the output; then the output before the gate, the states that are kept (one in
            # sixteen, sixteen a channel), both read again with the others, and the gradients.
            # Beside the decays', exponentials are those of the step's softplus and the gate, forward, and their slopes.
            passes = 1 if once is forward else 2
            seconds = {
                "bytes": 4 * length * (rows * channels + 2 * passes * STATES) / rates["bytes_a_second"],
                "exponentials": length * channels * (passes * STATES + others) / rates["exponentials_a_second"],
            }
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


def _best(once, rounds: int = 15) -> float:
    once()
    found = []
    for _ in range(rounds):
        begin = time.perf_counter()
        once()
        found.append(time.perf_counter() - begin)
    return min(found)
