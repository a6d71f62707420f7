"""How long the first call of each operator takes in a process, kernels compiled then, and how long where they lie on disk."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import partial

from .cases import Case
from .cases_models import training_cases
from .cases_other import convolution_cases, duality_cases
from .cases_scan import cases as scan_cases
from .device import Device
from .timing import synchronise

CHOSEN = ("scan forward+backward", "convolution forward+backward", "state space duality forward+backward")
CHOSEN += ("trapezoidal scan forward+backward",)


def rows(device: Device) -> Iterator[dict]:
    """One row an operator; TRITON_CACHE_DIR says whether kernels are on disk."""
    cache = os.environ.get("TRITON_CACHE_DIR")
    what = "on disk" if cache and os.path.isdir(cache) and os.listdir(cache) else "compiled"
    for case in chosen(device):
        call = next(iter(case.build(device).values()))
        seconds = [_seconds(call, device) for _ in range(2)]
        yield {
            "case": case.name,
            "what": f"first call, kernels {what}",
            "first_call_s": round(seconds[0], 3),
            "second_call_s": round(seconds[1], 4),
        }


def chosen(device: Device) -> list[Case]:
    found: dict[str, Case] = {}
    for make in (scan_cases, convolution_cases, duality_cases):
        for case in make(device):
            for prefix in CHOSEN:
                if case.name.startswith(prefix):
                    found.setdefault(prefix, case)
    return [*found.values(), next(iter(training_cases(device)))]


def _seconds(call: partial, device: Device) -> float:
    synchronise(device)
    begin = time.perf_counter()
    call()
    synchronise(device)
    return time.perf_counter() - begin
