"""The coming values of series, in their own units and times, with intervals: `predict.py ckpt=<run> horizon=30`."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from ...core.errors import UserError, closest
from ...core.pictures import save_figure
from ...core.ranges import Count, Fraction, Size, checked
from ..trained import Answer, Trained
from .forecasting import Forecasting, Said, adapted, calibrate, forecast
from .pictures import draw_coming

if TYPE_CHECKING:
    from torch import Tensor

TABLE = "forecasts.csv"
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
    pictures: Count = 6,
    output: str | None = None,
) -> Answer:
    """Forecasts what comes after the end of the data: a table, and a picture of it.

    Args:
        run: a trained forecaster.
        input: a file of the same form as the training data, whose end is gone on from; None: the run's own data.
        horizon: steps; None: as many as the model was trained for. Beyond that it goes on from its own forecasts.
        series: names of those wanted; None: all.
        future: a file with the coming values of the columns that are known ahead.
        level: share of the truth that intervals shall hold; None: the task's.
        pictures: series in the picture; 0: none.
        output: the table's file, .csv or .parquet; None: forecasts.csv in the run's folder.

    Raises:
        UserError: the run forecasts nothing, a series that there is not, coming values that are lacking.
    """
    if not isinstance(run.task, Forecasting):
        raise UserError(
            "this run forecasts nothing", given=f"task {type(run.task).__name__}", allowed="runs of task=forecasting"
        )
    target = run.folder / TABLE if output is None else Path(output).expanduser()
    if target.suffix not in (".csv", ".parquet"):
        raise UserError("forecasts are written as .csv or .parquet", given=f"output={output}")
    level = run.task.level if level is None else level
    found = coming(run, input, horizon, series, future, level)
    problems = []
    if np.isnan(found[0].low).any():
        problems = ["no intervals: the validation part is too short for windows of so many steps"]
    target.parent.mkdir(parents=True, exist_ok=True)
    write(found, target)
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
    chosen = _chosen([each.name for each in data.series], series)
    steps = -(-horizon // task.describe["horizon"]) * task.describe["horizon"]
    known = data.known_ahead(chosen, steps, horizon, future)
    ends = [data.last(number) for number in chosen]
    conformal = calibrate(task, own, horizon)
    learnt = {} if conformal is None else adapted(task, own, conformal, horizon, level)
    found = []
    for number, (past, marks, place), more in zip(chosen, ends, known, strict=True):
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


def write(found: Sequence[Coming], path: Path) -> None:
    """Writes forecasts as a table with a line for each series, time and variable, .csv or .parquet."""
    rows = [row for each in found for row in _rows(each)]
    if path.suffix == ".parquet":
        import polars

        polars.DataFrame(rows, schema=list(COLUMNS), orient="row").write_parquet(path)
        return
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        table.writerows(rows)


def _chosen(names: Sequence[str], wanted: str | Sequence[str] | None) -> list[int]:
    if wanted is None:
        return list(range(len(names)))
    found = []
    for name in [wanted] if isinstance(wanted, str) else wanted:
        if str(name) not in names:
            near = closest(str(name), names)
            raise UserError(
                "no such series",
                given=f"series={name}",
                allowed=list(names)[:20],
                do=f"series={near}" if near else None,
            )
        found.append(list(names).index(str(name)))
    return found


def _in_units(data: Any, number: int, place: int, said: Said, reach: Tensor) -> Coming:
    scaler, each = data.scaler, data.series[number]
    parts = (said.low - reach, said.middle, said.high + reach)
    low, middle, high = (scaler.original(part.double().numpy(), place) for part in parts)
    past = each.values[-data.lookback :, : middle.shape[1]]
    before = np.arange(len(each.values)) if each.stamps is None else each.stamps
    times, before = (data.local(part) for part in (data.after_end(number, len(middle)), before[-data.lookback :]))
    return Coming(each.name, times, list(data.variables)[: middle.shape[1]], middle, low, high, past, before)


def _rows(each: Coming) -> Iterator[tuple]:
    for step, time in enumerate(each.times):
        for column, variable in enumerate(each.variables):
            numbers = (float(part[step, column]) for part in (each.forecast, each.low, each.high))
            yield each.series, said_time(time), variable, *(None if np.isnan(x) else float(f"{x:.6g}") for x in numbers)


def said_time(time: Any) -> str:
    """A time as it is written: a day where it is midnight, the number of a step where there are no times."""
    if isinstance(time, np.datetime64):
        text = str(time.astype("datetime64[s]"))
        return text.removesuffix("T00:00:00").replace("T", " ")
    return str(time)


def _lines(found: Sequence[Coming], level: float) -> Iterator[str]:
    rows = [row for each in found for row in _rows(each)]
    yield f"  {'series':<16} {'time':<25} {'variable':<16} {'forecast':>12}   {level:.0%} interval"
    for series, time, variable, middle, low, high in rows[:SHOWN]:
        interval = "" if low is None else f"{low:,.6g} to {high:,.6g}"
        yield f"  {series[:16]:<16} {time:<25} {variable[:16]:<16} {middle:>12,.6g}   {interval}"
    if len(rows) > SHOWN:
        yield f"  … and {len(rows) - SHOWN:,} more"
