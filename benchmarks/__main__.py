"""`python -m polymamba.benchmarks [suite ...]`: measure, print, and write experiments/results/."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import platform
import sys
from pathlib import Path

import torch

from ..core.errors import UserError, closest
from .audio import real_time_suite
from .audio import training_suite as audio_training_suite
from .drop_in import drop_in_suite, drop_in_training_suite
from .heads import heads_suite
from .language import decode_suite
from .limit import limit_suite
from .medical import training_suite as medical_suite
from .mixer import mixer_suite, others_suite
from .operators import conv_suite, length_suite, order_suite, scan_suite
from .pixels import draw, parts_suite, pixels_suite
from .plot import plot
from .process import first_call_suite, memory_suite
from .profile import profile_suite
from .recommendation import million_suite, serving_suite, top_k_suite, training_suite
from .timeseries import timeseries_suite
from .vision import backbones_suite, cross_suite

SUITES = {
    "mixer": mixer_suite,
    "profile": profile_suite,
    "scan": scan_suite,
    "limit": limit_suite,
    "conv": conv_suite,
    "order": order_suite,
    "length": length_suite,
    "heads": heads_suite,
    "pixels": pixels_suite,
    "pixels_parts": parts_suite,
    "decode": decode_suite,
    "others": others_suite,
    "drop_in": drop_in_suite,
    "drop_in_training": drop_in_training_suite,
    "timeseries": timeseries_suite,
    "memory": memory_suite,
    "first_call": first_call_suite,
    "audio_training": audio_training_suite,
    "audio_real_time": real_time_suite,
    "medical": medical_suite,
    "vision": backbones_suite,
    "cross": cross_suite,
    "recommendation_training": training_suite,
    "recommendation_serving": serving_suite,
    "recommendation_top_k": top_k_suite,
    "recommendation_million": million_suite,
}
RESULTS = Path(__file__).parents[1] / "experiments" / "results"


def machine(device: str) -> dict:
    """What the numbers were measured on."""
    names = ("torch", "numba", "triton", "transformers", "mambapy")
    versions = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    facts = {"processor": _processor(), "threads": torch.get_num_threads(), "python": platform.python_version()}
    if device == "cuda":
        facts["gpu"] = torch.cuda.get_device_name()
    return facts | {"versions": versions}


def _processor() -> str:
    from llvmlite.binding import get_host_cpu_name

    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    return f"{name} ({get_host_cpu_name()})"


def chosen(names: list[str]) -> list[str]:
    """The suites asked for, or all of them."""
    unknown = [name for name in names if name not in SUITES]
    if unknown:
        near = closest(unknown[0], SUITES)
        raise UserError(f"unknown suite {unknown[0]!r}", given=unknown[0], allowed=list(SUITES), do=near)
    return names or list(SUITES)


def write(suite: str, rows: list[dict], device: str) -> Path:
    """Put a suite's rows into this machine's results file, in place of what was measured before, and draw it anew."""
    facts = machine(device)
    label = facts.get("gpu", facts["processor"]).replace(" ", "_").replace("(", "").replace(")", "").lower()
    file = RESULTS / f"benchmark_{label}.json"
    before = json.loads(file.read_text())["rows"] if file.exists() else []
    kept = [row for row in before if row["suite"] != suite]
    results = {"date": datetime.date.today().isoformat(), "device": device, "machine": facts, "rows": kept + rows}
    RESULTS.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(results, indent=1) + "\n")
    plot(results, file.with_suffix(".png"))
    if suite == "pixels":
        draw(rows, file.with_name(f"{file.stem}_pixels.png"))
    return file


def main(arguments: list[str]) -> int:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        suites = chosen(arguments)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    for suite in suites:
        rows = []
        for row in SUITES[suite](device):
            print(f"{row['suite']:10s} {row['case']:64s} {row['what']} / {row['against']}: {row['ratio']}", flush=True)
            rows.append(row)
        file = write(suite, rows, device)
    print(f"written: {file} and {file.with_suffix('.png').name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
