"""What only a fresh process can tell: peak memory, and how long the first call takes with and without compiled kernels."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile

PEAK = """
import sys, torch
from polymamba.core.mixers.mamba import Mamba
length = int(sys.argv[1])
mixer = Mamba(256)
def train(tokens):
    mixer(torch.randn(1, tokens, 256, requires_grad=True))[0].sum().backward()
def kilobytes(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))
train(64)
open("/proc/self/clear_refs", "w").write("5")  # resets the peak
before = kilobytes("VmRSS")
train(length)
print(kilobytes("VmHWM") - before)
"""

FIRST = """
import time, torch
from polymamba.core.mixers.mamba import Mamba
mixer, x = Mamba(64), torch.randn(1, 32, 64)
begin = time.perf_counter()
mixer(x)[0].sum().backward()
print(time.perf_counter() - begin)
"""


def _run(code: str, *arguments: str, **environment: str) -> float:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return float(json.loads(done.stdout.strip().splitlines()[-1]))


def memory_suite(device: str):
    """Peak memory of a training step of a mixer (d_model 256), beyond what 64 tokens need, by length."""
    if device != "cpu" or sys.platform != "linux":
        return
    lengths = (4096, 8192, 16384, 32768)
    kilobytes = {length: _run(PEAK, str(length)) for length in lengths}
    for length in lengths:
        per_token = kilobytes[length] / length
        yield {
            "suite": "memory",
            "case": f"forward+backward of a mixer, d_model 256, length {length}",
            "what": f"bytes per token at {length}",
            "against": f"bytes per token at {lengths[0]}",
            "ratio": round(per_token / (kilobytes[lengths[0]] / lengths[0]), 4),
            "megabytes": round(kilobytes[length] / 1024, 1),
            "bytes_per_token": round(1024 * per_token),
        }


def first_call_suite(device: str):
    """Seconds of the first training step of a process: kernels compiled then (cold), or found on disk (warm)."""
    if device != "cpu":
        return
    with tempfile.TemporaryDirectory() as empty:
        cold, warm = (_run(FIRST, NUMBA_CACHE_DIR=empty) for _ in range(2))
    yield {
        "suite": "first_call",
        "case": "first training step of a process",
        "what": "cold (compiles)",
        "against": "warm (kernels on disk)",
        "ratio": round(cold / warm, 2),
        "ms": round(1e3 * cold, 1),
        "against_ms": round(1e3 * warm, 1),
    }
