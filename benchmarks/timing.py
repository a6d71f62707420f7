"""Measuring things against each other: in turn, in one process, as ratios of neighbouring runs."""

from __future__ import annotations

import ctypes
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Comparison:
    """What was measured: seconds of every round, by name.

    A ratio is the median over rounds of the ratio within a round, so that a machine that slows down for a while slows
    both sides.
    """

    seconds: dict[str, list[float]]

    def median(self, name: str) -> float:
        return statistics.median(self.seconds[name])

    def best(self, name: str) -> float:
        return min(self.seconds[name])

    def ratio(self, name: str, to: str) -> float:
        return statistics.median(a / b for a, b in zip(self.seconds[name], self.seconds[to], strict=True))


def compare(functions: dict[str, Callable[[], object]], rounds: int = 9, warmup: int = 1) -> Comparison:
    """Run each function once a round, in turn, `rounds` times after `warmup` rounds that do not count."""
    seconds = {name: [] for name in functions}
    for round_number in range(warmup + rounds):
        for name, function in functions.items():
            _settle()
            begin = time.perf_counter()
            function()
            _settle()
            if round_number >= warmup:
                seconds[name].append(time.perf_counter() - begin)
    return Comparison(seconds)


def in_turn(functions: dict[str, Callable[[], object]], device: str, rounds: int = 3) -> Comparison:
    """As `timing.compare`, by the CPU seconds of this process where there is no GPU: other work on the machine does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(rounds + 1):
        for name, function in functions.items():
            begin = clock(device)
            function()
            if number:
                seconds[name].append(clock(device) - begin)
    return Comparison(seconds)


def clock(device: str) -> float:
    """Seconds: of this process on a CPU, of the wall once a GPU is done."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def peak(function: Callable[[], object]) -> float:
    """Megabytes that a call needs beyond what the process holds before it."""
    ctypes.CDLL(None).malloc_trim(0)  # what was freed before is not there to be used again
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = kilobytes("VmRSS")
    function()
    return round((kilobytes("VmHWM") - before) / 1024, 1)


def kilobytes(name: str) -> int:
    """A line of this process's status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def _settle() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def row(suite: str, case: str, measured: Comparison, name: str, to: str, **facts) -> dict:
    """One line of a results file: the ratio of two things, and the milliseconds behind it."""
    return {
        "suite": suite,
        "case": case,
        "what": name,
        "against": to,
        "ratio": round(measured.ratio(name, to), 4),
        "ms": round(1e3 * measured.median(name), 3),
        "against_ms": round(1e3 * measured.median(to), 3),
        "rounds": len(measured.seconds[name]),
        "threads": torch.get_num_threads(),
        **facts,
    }
