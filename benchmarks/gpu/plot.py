"""The picture of a results file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path


def plot(results: Mapping, file: Path) -> None:
    """Left: how many times the kernel's time others take, and the kernel the physical limit's. Right: time over length."""
    from matplotlib.figure import Figure

    timed = [row for row in results["rows"] if "ms" in row]
    bars = [(row, row["times_kernel"]) for row in timed if "times_kernel" in row]
    bars += [(row, row["times_limit"]) for row in timed if "times_limit" in row]
    figure = Figure(figsize=(13, 0.3 * len(bars) + 4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    places = range(len(bars))[::-1]
    for place, (row, times) in zip(places, bars, strict=True):
        ours = row["what"] == "kernel"
        name = f"kernel / limit by {row['limited_by']}" if ours else f"{row['what']} / kernel"
        left.barh(place, times, color="#e45756" if ours else "#4c78a8")
        left.text(0.001, place, f"{name}: {row['case']}", va="center", fontsize=5.5, in_layout=False)
        left.text(times, place, f" {times:.3g}×", va="center", fontsize=6, in_layout=False)
    left.set_yticks([])
    left.set_xscale("log")
    left.axvline(1, color="black", linewidth=0.8)
    left.set_xlabel("time ratio (one process, in turn)")
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
                right.plot(sorted(points), [points[n] for n in sorted(points)], marker="o", label=f"{what}, {which}")
    right.set_xscale("log", base=2)
    right.set_yscale("log")
    right.set_xlabel("tokens of a sequence")
    right.set_ylabel("ns per token, selective scan")
    if right.get_legend_handles_labels()[0]:
        right.legend(frameon=False, fontsize=7)
    figure.suptitle(f"{results['machine'].get('card', 'no card')}, {results['date']}", fontsize=9)
    figure.savefig(file, dpi=130)
