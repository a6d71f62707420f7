"""The coming values of series, in their own units and times, with intervals: `predict.py ckpt=<run> horizon=30`.

Classes of series and scores of their values, for runs of those tasks: class_of_series.py, scores.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from ...core.errors import UserError
from ...core.pictures import save_figure
from ...core.ranges import Count, Fraction, Size, checked
from ..trained import Answer, Trained
from .anomaly import Anomaly
from .class_of_series import name_series
from .classification import Classification
from .explanation import Explained, draw_explained, explain_windows
from .forecasting import Forecasting, Said, adapted, calibrate, forecast
from .pictures import draw_coming
from .scores import score_series
from .tables import chosen, said_time, write

if TYPE_CHECKING:
    from torch import Tensor

TASKS = {"forecasting": Forecasting, "classification": Classification, "anomaly": Anomaly}
TABLES = {"forecasting": "forecasts.csv", "classification": "predictions.csv", "anomaly": "scores.csv"}
OPTIONS = {  # of those that not every task has
    "forecasting": ("horizon", "future", "level", "series", "explain"),
    "classification": ("explain",),
    "anomaly": ("series",),
}
COLUMNS = ("series", "time", "variable", "forecast", "low", "high")
SHOWN = 12  # lines that are printed
END = 2**62  # a step behind all others


class Coming(NamedTuple):
    """What comes after the end of a series, in its own units.

    Args:
        series: its name.
        times: (steps,) datetime64[s], or the numbers of the steps.
        variables: names of what was forecast.
        forecast, low, high: (steps, variables) float64; low and high are NaN where nothing is known of the errors.
        past, past_times: the last steps before, (steps, variables) and (steps,).
    """

    series: str
    times: np.ndarray
    variables: Sequence[str]
    forecast: np.ndarray
    low: np.ndarray
    high: np.ndarray
    past: np.ndarray
    past_times: np.ndarray


@checked
def predict(
    run: Trained,
    input: str | None = None,
    horizon: Size | None = None,
    series: str | list[str] | None = None,
    future: str | None = None,
    level: Fraction | None = None,
    explain: str | None = None,
    top: Size = 3,
    pictures: Count = 6,
    output: str | None = None,
) -> Answer:
    """What comes after the end of the data, the class of each series, or the scores of its values: a table, and a picture.

    Args:
        run: a trained forecaster, classifier or scorer of anomalies.
        input: a file of the same form as the training data, whose end is gone on from or whose series are named or scored; None:
            the run's own data, of which a classifier names the test series, and of which the test part is scored.
        horizon: steps; None: as many as the model was trained for. Beyond that it goes on from its own forecasts.
        series: names of those wanted; None: all.
        future: a file with the coming values of the columns that are known ahead.
        level: share of the truth that intervals shall hold; None: the task's.
        explain: one of core.explanation.METHODS: draws what the answers rest on, over look-back or variables.
        top: classes named of each series.
        pictures: series in the picture; 0: none.
        output: the table's file, .csv or of forecasts and scores .parquet; None: forecasts.csv, predictions.csv or scores.csv in
            the run's folder.

    Raises:
        UserError: a task that answers nothing, an option of another task's, a series that there is not, coming values that are
            lacking.
    """
    kinds = {kind: name for name, kind in TASKS.items() if isinstance(run.task, kind)}
    if not kinds:
        raise UserError(
            "this run answers nothing about data of your own", given=f"task {type(run.task).__name__}",
            allowed="runs of task=forecasting, probabilistic, classification or anomaly",
        )  # fmt: skip
    [name] = kinds.values()
    target = run.folder / TABLES[name] if output is None else Path(output).expanduser()
    if target.suffix not in (".csv", ".parquet"):
        raise UserError("tables are written as .csv or .parquet", given=f"output={output}")
    asked = {"horizon": horizon, "future": future, "level": level, "series": series, "explain": explain}
    others = [key for key in asked if asked[key] is not None and key not in OPTIONS[name]]
    if others:
        raise UserError(
            f"{others[0]}= is not for {name}", given=f"{others[0]}={asked[others[0]]}", do=f"leave {others[0]}= out"
        )
    if name == "classification":
        return name_series(run, input, explain, top, pictures, target)
    if name == "anomaly":
        return score_series(run, input, series, pictures, target)
    if explain is not None:
        return _explain(run, input, series, explain, pictures)
    level = run.task.level if level is None else level
    found = coming(run, input, horizon, series, future, level)
    problems = []
    if np.isnan(found[0].low).any():
        problems = ["no intervals: the validation part is too short for windows of so many steps"]
    write(COLUMNS, [row for each in found for row in _rows(each)], target)
    files = [target]
    if pictures:
        picture = target.with_suffix(".png")
        save_figure(draw_coming(found[:pictures], level), picture)
        files.append(picture)
    return Answer(list(_lines(found, level)), files, problems)


def coming(
    run: Trained,
    input: str | None = None,
    horizon: int | None = None,
    series: str | Sequence[str] | None = None,
    future: str | None = None,
    level: float = 0.9,
) -> list[Coming]:
    """What comes after the end of each series; arguments and errors as of predict."""
    task, own = run.task, run.data
    horizon = task.describe["horizon"] if horizon is None else horizon
    data = own if input is None else own.again(input)
    data.setup()
    places = chosen([each.name for each in data.series], series)
    steps = -(-horizon // task.describe["horizon"]) * task.describe["horizon"]
    known = data.known_ahead(places, steps, horizon, future)
    ends = [data.last(number) for number in places]
    conformal = calibrate(task, own, horizon)
    learnt = {} if conformal is None else adapted(task, own, conformal, horizon, level)
    found = []
    for number, (past, marks, place), more in zip(places, ends, known, strict=True):
        ahead = torch.cat([marks, torch.from_numpy(more)])
        said = Said(
            *(each if each is None else each[..., 0, :, :] for each in forecast(task, past[None], ahead[None], horizon))
        )
        reach = torch.full_like(said.middle, float("nan"))
        if place in learnt:
            reach = learnt[place].width(END)
        elif conformal is not None:
            reach = conformal.width(level)
        found.append(_in_units(data, number, place, said, reach))
    return found


def _in_units(data: Any, number: int, place: int, said: Said, reach: Tensor) -> Coming:
    scaler, each = data.scaler, data.series[number]
    parts = (said.low - reach, said.middle, said.high + reach)
    low, middle, high = (scaler.original(part.double().numpy(), place) for part in parts)
    past = each.values[-data.lookback :, : middle.shape[1]]
    before = np.arange(len(each.values)) if each.stamps is None else each.stamps
    times, before = (data.local(part) for part in (data.after_end(number, len(middle)), before[-data.lookback :]))
    return Coming(each.name, times, list(data.variables)[: middle.shape[1]], middle, low, high, past, before)


def _explain(run: Trained, input: str | None, series: Any, method: str, pictures: int) -> Answer:
    """What the forecasts behind the ends of series rest on."""
    data = run.data if input is None else run.data.again(input)
    data.setup()
    names = [each.name for each in data.series]
    places = chosen(names, series)[: max(pictures, 1)]
    ends = [data.last(number) for number in places]
    weight = next(run.model.parameters())
    x, marks = (torch.stack(part).to(weight) for part in list(zip(*ends, strict=True))[:2])
    found = explain_windows(run.model, x, marks if marks.shape[-1] else None, method)
    picture = run.folder / f"explained_{method}.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    heading = f"What the forecasts rest on ({method})"
    titles = [names[number] for number in places]
    parts = Explained(*(None if part is None else part.cpu() for part in found))
    save_figure(draw_explained(x.cpu(), parts, titles, list(data.variables), heading), picture)
    return Answer([], [picture])


def _rows(each: Coming) -> Iterator[tuple]:
    for step, time in enumerate(each.times):
        for column, variable in enumerate(each.variables):
            numbers = (float(part[step, column]) for part in (each.forecast, each.low, each.high))
            yield each.series, said_time(time), variable, *(None if np.isnan(x) else float(f"{x:.6g}") for x in numbers)


def _lines(found: Sequence[Coming], level: float) -> Iterator[str]:
    rows = [row for each in found for row in _rows(each)]
    yield f"  {'series':<16} {'time':<25} {'variable':<16} {'forecast':>12}   {level:.0%} interval"
    for series, time, variable, middle, low, high in rows[:SHOWN]:
        interval = "" if low is None else f"{low:,.6g} to {high:,.6g}"
        yield f"  {series[:16]:<16} {time:<25} {variable[:16]:<16} {middle:>12,.6g}   {interval}"
    if len(rows) > SHOWN:
        yield f"  … and {len(rows) - SHOWN:,} more"
