"""curves.png beside a comparison's table.yaml: how each row's runs do on the validation data over the CPU time of training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...core.pictures import save_figure
from ..callbacks.progress_picture import dress

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Rows = Sequence[Mapping[str, str]]  # of a metrics.csv
FEW = 10  # rows that differ by hue alone; more take each hue dark and light


def save_curves(runs: Mapping[str, Sequence[Rows]], metrics: Iterable[str], path: Path) -> None:
    """Draws the first of these metrics that was validated, else the loss; nothing where no run was validated.

    Args:
        runs: label of a row -> the metrics.csv of each of its runs.
        metrics: names as the table's columns give them.
        path: the file.
    """
    validated = {key for row in runs.values() for run in row for line in run if line["stage"] == "val" for key in line}
    metric = next((each for each in [*metrics, "loss"] if f"val/{each}" in validated), None)
    if metric:
        save_figure(draw_curves(runs, metric), path)


def draw_curves(runs: Mapping[str, Sequence[Rows]], metric: str) -> Figure:
    """One line a run, one colour a row; validations without CPU time are left out."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.6), dpi=110, facecolor="white", layout="constrained")
    axis, colours = figure.subplots(), colormaps["tab10" if len(runs) <= FEW else "tab20"].colors
    dress(axis, f"{metric.replace('_', ' ')} on the validation data")
    for number, (label, row) in enumerate(runs.items()):
        for run in row:
            points = [line for line in run if line["stage"] == "val" and {f"val/{metric}", "cpu_seconds"} <= {*line}]
            x, y = ([float(line[key]) for line in points] for key in ("cpu_seconds", f"val/{metric}"))
            axis.plot(
                [each / 60 for each in x], y, color=colours[number % len(colours)], lw=1.4, marker=".", label=label
            )
            label = None
    axis.set_xlabel("CPU time of training, minutes", fontsize=9)
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
