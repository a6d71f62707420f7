"""Drawing windows with their forecasts, errors by step, and the order of variables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...core.pictures import FAINT, INK, RIGHT, WRONG

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from .forecasting import Said
    from .models.mambats import VariableScan

DRAWN = 3  # variables of a window
SEEN = 3  # so many horizons of the past


def draw_forecasts(
    heading: str,
    past: Tensor,
    future: Tensor | None,
    said: Said | None = None,
    width: Tensor | None = None,
    titles: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
) -> Figure:
    """Windows, a row each, and their first variables, a column each: past, truth, forecast and interval.

    Args:
        heading: above all.
        past, future: (windows, steps, variables); None: is not drawn.
        said: forecasts of these windows. width: how far the interval reaches beyond them, (horizon, variables).
        titles: of windows; names: of variables.
    """
    windows, lookback, variables = past.shape
    figure, axes = _panels(heading, windows, variables)
    horizon = (future if future is not None else said.middle).shape[1]
    shown = min(lookback, SEEN * horizon)
    before, after = np.arange(-shown + 1, 1), np.arange(1, horizon + 1)
    for row in range(windows):
        for column in range(axes.shape[1]):
            axis = axes[row, column]
            axis.plot(before, past[row, -shown:, column], color=FAINT, linewidth=1)
            if future is not None:
                axis.plot(after, future[row, :, column], color=INK, linewidth=1, label="truth")
            if said is not None:
                line, low, high = (each[row, :, column] for each in said[:3])
                axis.plot(after, line, color=RIGHT, linewidth=1, label="forecast")
                if width is not None:
                    low, high = low - width[:, column], high + width[:, column]
                axis.fill_between(after, low, high, color=RIGHT, alpha=0.18, linewidth=0)
            axis.axvline(0.5, color=FAINT, linewidth=0.5)
            name = names[column] if names else f"variable {column}"
            title = f"{titles[row]}: {name}" if titles else name
            axis.set_title(title, fontsize=7, color=INK)
    return figure


def draw_errors(steps: np.ndarray, shares: np.ndarray | None, sample: np.ndarray) -> Figure:
    """How errors grow over the horizon, how often intervals hold at each step, and errors over forecasts.

    Args:
        steps: (2, horizon): mean squared and mean absolute errors.
        shares: (horizon,) of the truth inside the intervals; None: there are none.
        sample: (2, values): forecasts and errors.
    """
    from matplotlib.figure import Figure

    figure = Figure((11, 3.2), dpi=110, layout="constrained")
    by_step, held, residuals = figure.subplots(1, 3)
    numbers = np.arange(1, steps.shape[1] + 1)
    by_step.plot(numbers, steps[0], color=WRONG, label="MSE")
    by_step.plot(numbers, steps[1], color=INK, label="MAE")
    by_step.set(title="error by step", xlabel="step of the horizon", ylim=(0, None))
    by_step.legend(frameon=False)
    held.set(title="share of the truth in its interval", xlabel="step of the horizon", ylim=(0, 1.02))
    if shares is not None:
        held.plot(numbers, shares, color=RIGHT)
    residuals.scatter(*sample, s=2, color=INK, alpha=0.3, linewidths=0)
    residuals.axhline(0, color=FAINT, linewidth=0.7)
    residuals.set(title="truth minus forecast, by forecast", xlabel="forecast, scaled")
    return figure


def draw_order(order: Sequence[int], scan: VariableScan, names: Sequence[str] | None) -> Figure:
    """The variables in the order in which they are read, and what it costs to have each behind each."""
    from matplotlib.figure import Figure

    counts = scan.count_matrix.detach().float().cpu().numpy()
    costs = scan.adjacency_matrix.detach().float().cpu().numpy() / np.where(counts > 0, counts, np.nan)
    labels = [names[each] if names else str(each) for each in order]
    figure = Figure((5.5, 5), dpi=110, layout="constrained")
    axis = figure.subplots()
    drawn = axis.imshow(costs[np.ix_(order, order)])
    figure.colorbar(drawn, ax=axis, label="mean loss, over its deviation")
    axis.set_title("variables in the order they are read; row before column", fontsize=9)
    axis.set_xticks(range(len(order)), labels, rotation=90, fontsize=6)
    axis.set_yticks(range(len(order)), labels, fontsize=6)
    return figure


def draw_coming(found: Sequence, level: float) -> Figure:
    """Forecasts behind the ends of series, in their own units and times, a row each, their first variables a column each.

    Args:
        found: predict.Coming.
        level: what the intervals are said to hold.
    """
    from matplotlib.figure import Figure

    columns = min(max(len(each.variables) for each in found), DRAWN)
    figure = Figure((4.6 * columns, 2.1 * len(found) + 0.5), dpi=110, layout="constrained")
    figure.suptitle(f"Forecasts with {level:.0%} intervals", color=INK, fontsize=11)
    axes = figure.subplots(len(found), columns, squeeze=False)
    for row, each in enumerate(found):
        shown = slice(-SEEN * len(each.times), None)
        before, after = _as_times(each.past_times[shown]), _as_times(each.times)
        for column, name in enumerate(each.variables[:columns]):
            axis = axes[row, column]
            axis.plot(before, each.past[shown, column], color=FAINT, linewidth=1)
            axis.plot(after, each.forecast[:, column], color=RIGHT, linewidth=1.2)
            if not np.isnan(each.low[:, column]).any():
                axis.fill_between(
                    after, each.low[:, column], each.high[:, column], color=RIGHT, alpha=0.18, linewidth=0
                )
            axis.set_title(f"{each.series}: {name}" if each.series != name else name, fontsize=8, color=INK)
            axis.tick_params(labelsize=6, axis="y")
            axis.tick_params(labelsize=6, axis="x", rotation=20)
    return figure


def _as_times(times: np.ndarray) -> np.ndarray:
    """Times for an axis: the clock's, without the offsets that text may have."""
    return np.array([each[:19] for each in times], "datetime64[s]") if times.dtype.kind == "U" else times


def draw_hidden(heading: str, values: Tensor, seen: Tensor, said: Tensor, names: Sequence[str] | None = None) -> Figure:
    """Windows, a row each, and their first variables, a column each: the values, those hidden of them, what was said of these.

    Args:
        values, seen, said: (windows, steps, variables), seen bool.
    """
    figure, axes = _panels(heading, *values.shape[::2])
    steps = np.arange(values.shape[1])
    for row, column in np.ndindex(axes.shape):
        axis, hidden = axes[row, column], ~seen[row, :, column]
        axis.plot(steps, values[row, :, column], color=FAINT, linewidth=1)
        axis.plot(steps[hidden], values[row, hidden, column], ".", color=INK, markersize=3)
        axis.plot(steps[hidden], said[row, hidden, column], ".", color=RIGHT, markersize=3)
        axis.set_title(names[column] if names else f"variable {column}", fontsize=7, color=INK)
    return figure


def draw_anomalies(heading: str, values: Tensor, wrong: Tensor, said: Tensor) -> Figure:
    """Windows, the variable of each with an anomaly or its first: the values, where they are wrong, what was expected.

    Args:
        values, wrong, said: (windows, steps, variables), wrong bool.
    """
    chosen = wrong.any(1).int().argmax(1)
    figure, axes = _panels(heading, -(-len(values) // DRAWN), DRAWN)
    for number, (axis, column) in enumerate(zip(axes.flat, chosen, strict=False)):
        marked = np.where(wrong[number, :, column], values[number, :, column], np.nan)
        axis.plot(values[number, :, column], color=FAINT, linewidth=1)
        axis.plot(said[number, :, column], color=RIGHT, linewidth=0.8)
        axis.plot(marked, color=WRONG, linewidth=1.4)
        axis.set_title(f"variable {int(column)}", fontsize=7, color=INK)
    return figure


def _panels(heading: str, rows: int, columns: int) -> tuple[Figure, np.ndarray]:
    from matplotlib.figure import Figure

    columns = min(columns, DRAWN)
    figure = Figure((3.4 * columns, 1.7 * rows + 0.6), dpi=110, layout="constrained")
    figure.suptitle(heading, color=INK, fontsize=11)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.tick_params(labelsize=6)
    return figure, axes


def draw_scores(found: Sequence) -> Figure:
    """Series, a row each, their first variables a column each: values, what was expected, alarms.

    Args:
        found: scores.Scored.
    """
    figure, axes = _panels(
        "Values, what was expected of them, and alarms", len(found), max(len(each.variables) for each in found)
    )
    for row, each in enumerate(found):
        times = _as_times(each.times)
        for column, name in enumerate(each.variables[: axes.shape[1]]):
            axis, values = axes[row, column], each.values[:, column]
            axis.plot(times, values, color=FAINT, linewidth=1)
            axis.plot(times, each.expected[:, column], color=RIGHT, linewidth=0.7)
            axis.plot(times, np.where(each.score[:, column] > 1, values, np.nan), ".", color=WRONG, markersize=4)
            axis.set_title(f"{each.series}: {name}" if each.series != name else name, fontsize=8, color=INK)
            axis.tick_params(axis="x", rotation=20)
    return figure
