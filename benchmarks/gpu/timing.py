"""Times on the device's own clock: events around each call, nothing of the one before in the cache, everything in turn."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from ..timing import Comparison
from .device import Device

CACHE = 256 << 20  # bytes written between calls: several times the L2 of any card
SLOW = 0.5  # seconds from which on a call is timed apart, SLOW_ROUNDS times
SLOW_ROUNDS = 2
SECONDS = 0.6  # to spend on a comparison
ROUNDS = (5, 25)
CYCLES = 2e9  # of a card's clock in a second, about
AHEAD, LONGEST = (
    1.5,
    0.05,
)  # times as long as a call takes to be launched the card is kept busy before it; seconds at most


@dataclass
class Times:
    """Milliseconds of each round; megabytes at the peak beyond what was there before the call; the first call's seconds; how
    long this process was busy with launching the call, milliseconds of each round.
    """

    milliseconds: list[float]
    megabytes: float | None
    first_seconds: float
    host_milliseconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.milliseconds)

    @property
    def spread(self) -> float:
        """From the first to the third quartile, over the median."""
        if len(self.milliseconds) < 4:
            return (max(self.milliseconds) - min(self.milliseconds)) / self.median
        low, _, high = statistics.quantiles(self.milliseconds, n=4)
        return (high - low) / self.median


def measure(calls: dict[str, Callable[[], object]], device: Device) -> dict[str, Times | Exception]:
    """Every call's times, or the error that it raised."""
    found: dict[str, Times | Exception] = {}
    for name, call in calls.items():
        try:
            found[name] = _first(call, device)
        except Exception as error:
            # Frames of the traceback would keep its tensors, and most errors here are that there is no room for more.
            error.__context__ = None
            found[name] = error.with_traceback(None)
            _free(device)
    if device.small:
        return found
    fast = {n: calls[n] for n, t in found.items() if isinstance(t, Times) and t.median < 1e3 * SLOW}
    slow = {n: calls[n] for n, t in found.items() if isinstance(t, Times) and n not in fast}
    total = sum(found[name].median for name in fast) / 1e3
    rounds = min(ROUNDS[1], max(ROUNDS[0], round(SECONDS / max(total, 1e-6))))
    for group, times in ((fast, rounds), (slow, SLOW_ROUNDS)):
        seconds = _in_turn(group, times, device)
        for name, (values, host) in seconds.items():
            found[name].milliseconds, found[name].host_milliseconds = values, host
    return found


def ratio(times: dict[str, Times], name: str, to: str) -> float:
    """The median of the ratios within a round; of slow calls, timed apart, the ratio of medians."""
    a, b = times[name].milliseconds, times[to].milliseconds
    if len(a) == len(b):
        return Comparison({"a": a, "b": b}).ratio("a", "b")
    return times[name].median / times[to].median


def _first(call: Callable[[], object], device: Device) -> Times:
    """A first call, whose kernels are compiled, and a second one, for what it takes."""
    begin = time.perf_counter()
    call()
    synchronise(device)
    first = time.perf_counter() - begin
    before = _start_peak(device)
    begin = time.perf_counter()
    if not device.small:
        call()
        synchronise(device)
    again = time.perf_counter() - begin
    return Times([1e3 * (first if device.small else again)], _peak(device, before), first)


def _in_turn(
    calls: dict[str, Callable[[], object]], rounds: int, device: Device
) -> dict[str, tuple[list[float], list[float]]]:
    """Of each call its milliseconds on the device, and those that launching it took, round by round."""
    if device.kind != "cuda":
        return {name: ([_wall(call) for _ in range(rounds)], []) for name, call in calls.items()}
    flush = torch.empty(CACHE, dtype=torch.int8, device=device.name)
    marks: dict[str, list] = {name: [] for name in calls}
    host: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            flush.zero_()
            # A card that waits for what is being launched would count the launching as its own time.
            ahead = min(AHEAD * host[name][0] / 1e3, LONGEST) if host[name] else 0
            torch.cuda._sleep(1 + int(ahead * CYCLES))
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            host[name].append(_wall(call))
            end.record()
            marks[name].append((begin, end))
        torch.cuda.synchronize()
    # The first round has said how long each call takes to be launched.
    return {name: ([a.elapsed_time(b) for a, b in pairs[1:]], host[name][1:]) for name, pairs in marks.items()}


def _wall(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - begin)


def synchronise(device: Device) -> None:
    if device.kind == "cuda":
        torch.cuda.synchronize()


def _free(device: Device) -> None:
    gc.collect()
    if device.kind == "cuda":
        torch.cuda.empty_cache()


def _start_peak(device: Device) -> int:
    if device.kind != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def _peak(device: Device, before: int) -> float | None:
    return round((torch.cuda.max_memory_allocated() - before) / 2**20, 1) if device.kind == "cuda" else None
