"""Forecasts of windows whose future is known, one behind the other to the end of the data: `predict.py ckpt=<run> windows=5`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ...core.errors import UserError
from ..trained import Answer, Trained
from .conformal import Adaptive, outside
from .forecasting import calibrate, forecast
from .tables import chosen, said_time, write

COLUMNS = ("series", "cutoff", "time", "variable", "truth", "forecast", "low", "high")


class Rolled(NamedTuple):
    """The windows of a series; all in its own units.

    Args:
        series: its name.
        cutoffs: (windows,) the last time that each forecast knows. times: (windows, horizon).
        variables: names of what was forecast.
        truth, forecast, low, high: (windows, horizon, variables) float64; low and high NaN where nothing is known of the errors.
    """

    series: str
    cutoffs: np.ndarray
    times: np.ndarray
    variables: Sequence[str]
    truth: np.ndarray
    forecast: np.ndarray
    low: np.ndarray
    high: np.ndarray


def cross_validation(
    run: Trained,
    windows: int,
    step: int | None = None,
    horizon: int | None = None,
    series: str | Sequence[str] | None = None,
    level: float | None = None,
) -> list[Rolled]:
    """Forecasts the last windows of each series as if their future were not known. The model is not trained anew for each.

    Args:
        run: a trained forecaster.
        windows: how many, the last of which ends where the series does.
        step: steps between them; None: the horizon.
        horizon: steps of each; None: as many as the model was trained for.
        series: names of those wanted; None: all.
        level: of the intervals, which learn from the windows before; None: the task's.

    Raises:
        UserError: a series that there is not; windows that reach into what the model was trained or chosen on.
    """
    task, data = run.task, run.data
    data.setup()
    own = task.describe["horizon"]
    horizon = own if horizon is None else horizon
    step = horizon if step is None else step
    places = chosen([each.name for each in data.series], series)
    for place in places:
        each = data.series[place]
        most = (len(each.values) - each.ends[1] - horizon) // step + 1
        if windows > most:
            raise UserError(
                f"the windows of series {each.name!r} reach into what the model was trained or chosen on",
                given=f"windows={windows} of {horizon} steps, {step} apart",
                allowed=f"up to {most} within its test part of {len(each.values) - each.ends[1]} steps",
            )  # fmt: skip
    conformal = calibrate(task, data, horizon)
    level = task.level if level is None else level
    return [_rolled(task, data, place, windows, step, horizon, conformal, level) for place in places]


def _rolled(
    task: Any, data: Any, place: int, windows: int, step: int, horizon: int, conformal: Any, level: float
) -> Rolled:
    each, own = data.series[place], task.describe["horizon"]
    begin = sum(len(before.values) for before in data.series[:place])
    cutoffs = len(each.values) - horizon - step * np.arange(windows)[::-1]
    # what is known of the steps behind the end is not asked for: the last value's marks stand there
    wanted = -(-horizon // own) * own
    batches, truth = [], []
    for cutoff in cutoffs:
        rows = np.minimum(np.arange(cutoff - data.lookback, cutoff + wanted), len(each.values) - 1)
        window = data.rows(begin + rows)
        batches.append(forecast(task, window.past, window.marks, horizon))
        truth.append(window.future[:, :horizon, : task.targets])
    truth = torch.cat(truth)
    low, middle, high = (torch.cat([getattr(said, name) for said in batches]) for name in ("low", "middle", "high"))
    reach = torch.full_like(middle, float("nan"))
    if conformal is not None:
        reach = Adaptive(conformal, level).follow(cutoffs, outside(truth, low, high))
    number = data.last(place)[2]
    parts = [data.scaler.original(part.double().numpy(), number) for part in (truth, middle, low - reach, high + reach)]
    stamps = np.arange(len(each.values)) if each.stamps is None else data.local(each.stamps)
    times = stamps[cutoffs[:, None] + np.arange(horizon)]
    return Rolled(each.name, stamps[cutoffs - 1], times, list(data.variables)[: task.targets], *parts)


def roll(
    run: Trained, windows: int, step: int | None, horizon: int | None, series: Any, level: float | None, target: Path
) -> Answer:
    """Cross-validation as predict.py answers it: a table of all forecasts, and the errors of each window."""
    found = cross_validation(run, windows, step, horizon, series, level)
    write(COLUMNS, [row for each in found for row in _rows(each)], target)
    lines = [f"  {'series':<16} {'cutoff':<25} {'MAE':>12} {'in intervals':>13}"]
    for each in found:
        errors, inside = np.abs(each.forecast - each.truth), (each.low <= each.truth) & (each.truth <= each.high)
        for place, cutoff in enumerate(each.cutoffs):
            lines.append(
                f"  {each.series[:16]:<16} {said_time(cutoff):<25} {errors[place].mean():>12,.6g} {inside[place].mean():>13.1%}"
            )
    return Answer(lines, [target])


def _rows(each: Rolled) -> Iterator[tuple]:
    for place, cutoff in enumerate(each.cutoffs):
        for step, time in enumerate(each.times[place]):
            for column, variable in enumerate(each.variables):
                numbers = (part[place, step, column] for part in (each.truth, each.forecast, each.low, each.high))
                numbers = (None if np.isnan(x) else float(f"{x:.6g}") for x in numbers)
                yield each.series, said_time(cutoff), said_time(time), variable, *numbers
