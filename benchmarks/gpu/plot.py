"""The picture of a results file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

WAYS = {"kernel": "#e45756", "official CUDA scan": "#54a24b", "FlashAttention": "#4c78a8", "reference": "#b0b0b0"}


def plot(results: Mapping, file: Path) -> None:
    """Left: how many times the kernel's time other ways take, without the reference. Right: time over length."""
    from matplotlib.figure import Figure

    timed = [row for row in results["rows"] if "ms" in row]
    bars = [row for row in timed if "times_kernel" in row and row["what"] != "reference"]
    figure = Figure(figsize=(13, max(4.5, 0.24 * len(bars) + 1.5)), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1))
    places = range(len(bars))[::-1]
    times = [row["times_kernel"] for row in bars]
    left.barh(places, times, color=["#54a24b" if "official" in row["what"] else "#4c78a8" for row in bars])
    left.set_yticks(places, [f"{row['what']}: {_short(row['case'])}" for row in bars], fontsize=6)
    for place, value in zip(places, times, strict=True):
        left.text(value, place, f" {value:.3g}×", va="center", fontsize=6)
    left.set_xscale("log")
    left.axvline(1, color="black", linewidth=0.8)
    left.set_xlabel("time over the kernel's (one process, in turn)")
    for which in ("forward", "forward+backward"):
        for what in dict.fromkeys(row["what"] for row in timed):
            points = {}
            for row in timed:
                length = re.match(
                    rf"scan {re.escape(which)}, 1 path, raster order, batch \d+, length (\d+)", row["case"]
                )
                if length and row["what"] == what:
                    points[int(length[1])] = 1e6 * row["ms"] / row["tokens"]
            if len(points) > 1:
                right.plot(
                    sorted(points), [points[n] for n in sorted(points)], "o-" if which == "forward" else "o--",
                    color=WAYS.get(what), label=f"{what}, {which}",
                )  # fmt: skip
    right.set_xscale("log", base=2)
    right.set_yscale("log")
    right.set_xlabel("tokens of a sequence")
    right.set_ylabel("ns per token, selective scan")
    if right.get_legend_handles_labels()[0]:
        right.legend(frameon=False, fontsize=7)
    figure.suptitle(f"{results['machine'].get('card', 'no card')}, {results['date']}", fontsize=9)
    figure.savefig(file, dpi=130)


def _short(case: str) -> str:
    """Without what most cases have in common."""
    for common in (", 1 path, raster order", " 1536 channels,", " 16 states", ", bfloat16", ", d_model 768"):
        case = case.replace(common, "")
    return case.rstrip(", ")
