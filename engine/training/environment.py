"""What a run depended on: versions, commit, machine."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "polymamba", "torch", "torchvision", "lightning", "hydra-core", "timm", "numba", "triton", "numpy", "safetensors",
)  # fmt: skip


def describe_environment() -> dict[str, Any]:
    """Versions, commit and machine as JSON values."""
    import psutil
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": sys.argv,
        "python": platform.python_version(),
        **versions(),
        "machine": {
            "system": platform.platform(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
            "gpus": [torch.cuda.get_device_name(number) for number in range(gpus)],
        },
    }


def versions() -> dict[str, Any]:
    """What the same configuration may give other results with: the packages' versions, the commit of the source tree."""
    return {"versions": {name: _version(name) for name in PACKAGES}, "commit": _commit()}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _commit() -> dict[str, Any] | None:
    """The commit of the source tree and whether files differ from it; None outside a git checkout."""
    command = ["git", "status", "--porcelain=v2", "--branch"]
    try:
        found = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    lines = found.stdout.splitlines()
    [sha] = [line.split()[-1] for line in lines if line.startswith("# branch.oid ")]
    return {"sha": sha, "dirty": any(not line.startswith("#") for line in lines)}


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
