"""What the card is, and what it can do at most: copying, exponentials, products of matrices, each measured."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from importlib.util import find_spec

import torch

from .device import Device
from .timing import measure

PACKAGES = ("torch", "triton", "numpy", "timm", "lightning", "numba", "mamba_ssm", "causal_conv1d")
QUERY = "name,driver_version,memory.total,memory.free,clocks.sm,clocks.max.sm,clocks.mem,power.limit,temperature.gpu"


def facts(device: Device) -> dict:
    """Card, driver, versions, free memory, clocks."""
    found = {"device": device.kind, "python": platform.python_version(), "system": platform.platform()}
    found["versions"] = {name: version for name in PACKAGES if (version := _version(name))}
    if device.kind != "cuda":
        return found | {"card": device.kind}
    if not torch.cuda.is_available():
        return found
    properties = torch.cuda.get_device_properties(0)
    free, total = torch.cuda.mem_get_info()
    found |= {
        "card": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "cuda": torch.version.cuda,
    }
    found |= {"multiprocessors": properties.multi_processor_count, "l2_megabytes": properties.L2_cache_size >> 20}
    found |= {"free_megabytes": free >> 20, "total_megabytes": total >> 20, "cards": torch.cuda.device_count()}
    return found | {"nvidia_smi": _smi()}


def _version(name: str) -> str | None:
    if find_spec(name) is None:
        return None
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not said"


def _smi() -> dict[str, str] | str:
    command = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader", "-i", "0"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    return dict(zip(QUERY.split(","), done.stdout.strip().split(", "), strict=False))


def ceilings(device: Device) -> dict[str, float]:
    """Bytes a second of a large copy (read and written), exponentials a second, flops a second of a bfloat16 product."""
    from .exponentials import KEPT, REPEATS, exponentials_kernel

    size = device.pick(1 << 30, 1 << 12)
    source = torch.empty(size, dtype=torch.uint8, device=device.name)
    target = torch.empty_like(source)
    programs, side = device.pick(132 * 64, 2), device.pick(8192, 16)
    out = torch.empty(programs * KEPT, device=device.name)
    a, b = (torch.randn(side, side, device=device.name).to(torch.bfloat16) for _ in "ab")
    repeats = device.pick(REPEATS, 2)
    calls = {
        "copy": lambda: target.copy_(source),
        "exponentials": lambda: exponentials_kernel[(programs,)](out, repeats, KEPT=KEPT, num_warps=4),
        "product": lambda: a @ b,
    }
    times = measure(calls, device)
    for found in times.values():
        if isinstance(found, Exception):
            raise found
    seconds = {name: found.median / 1e3 for name, found in times.items()}
    return {
        "bytes_per_second": 2 * size / seconds["copy"],
        "exponentials_per_second": programs * KEPT * repeats / seconds["exponentials"],
        "flops_per_second": 2 * side**3 / seconds["product"],
    }
