"""How far the values of series are from what is expected of them: `predict.py ckpt=<run of task=anomaly> input=loads.csv`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from ...core.pictures import save_figure
from ..trained import Answer, Trained
from .anomaly import Anomaly, alarm_threshold
from .pictures import draw_scores
from .tables import chosen, said_time, write

if TYPE_CHECKING:
    from torch import Tensor

COLUMNS = ("series", "time", "variable", "value", "expected", "score", "alarm")
SHOWN = 12  # alarms that are printed


class Scored(NamedTuple):
    """A series with its scores; all (steps, variables) but times, (steps,).

    Args:
        values, expected: in the series' units. score: their distance, over the threshold of alarms: above 1 is one.
    """

    series: str
    times: np.ndarray
    variables: Sequence[str]
    values: np.ndarray
    expected: np.ndarray
    score: np.ndarray


def score_series(run: Trained, input: str | None, series: Any, pictures: int, target: Path) -> Answer:
    """Scores every value of some series, of the run's own data those of the test part; see predict.predict.

    Raises:
        UserError: a series that there is not, or that is shorter than a window.
    """
    data = run.data if input is None else run.data.again(input)
    run.data.setup()
    data.setup()
    threshold = alarm_threshold(run.task, run.data)
    places = chosen([each.name for each in data.series], series)
    found = [scored(run.task, data, number, threshold, whole=input is not None) for number in places]
    rows = [row for each in found for row in _rows(each)]
    write(COLUMNS, rows, target)
    files = [target]
    if pictures:
        files.append(target.with_suffix(".png"))
        save_figure(draw_scores(found[:pictures]), files[-1])
    alarms = sorted((row for row in rows if row[-1]), key=lambda row: -row[-2])
    lines = [f"  {len(alarms):,} alarms in {len(rows):,} values"]
    if alarms:
        lines.append(f"  {'series':<16} {'time':<25} {'variable':<16} {'value':>12} {'expected':>12} {'score':>8}")
    lines += [
        f"  {name[:16]:<16} {time:<25} {variable[:16]:<16} {value:>12,.6g} {expected:>12,.6g} {score:>8.2f}"
        for name, time, variable, value, expected, score, _ in alarms[:SHOWN]
    ]
    return Answer(lines, files)


@torch.no_grad()
def scored(task: Anomaly, data: Any, number: int, threshold: Tensor, whole: bool) -> Scored:
    """The scores of the series at this place: its windows one behind the other, the last up to its end.

    Args:
        threshold: of alarms, (variables,), scaled.
        whole: all of the series; else its test part.
    """
    each, lookback = data.series[number], data.lookback
    place = data.last(number)[2]  # and raises where the series is too short
    begin = sum(len(before.values) for before in data.series[:number])
    first = 0 if whole else min(each.ends[1], len(each.values) - lookback)
    starts = np.append(np.arange(first, len(each.values) - lookback, lookback), len(each.values) - lookback)
    weight = next(task.model.parameters(), torch.zeros((), device=task.device))
    expected = np.zeros((len(each.values), len(data.variables)))
    # of windows that overlap the later one counts
    for start in starts:
        values, marks = task.inputs(data.window(np.array([begin + start]), horizon=0))
        said = task.expected(values.to(weight), None if marks is None else marks.to(weight))
        expected[start : start + lookback] = said[0].cpu().double().numpy()
    scaled = data.scaler.scaled(each.values, place).astype(np.float64)
    score = np.abs(expected - scaled) / threshold.double().numpy()
    times = np.arange(len(each.values)) if each.stamps is None else data.local(each.stamps)
    expected = data.scaler.original(expected, place)
    return Scored(
        each.name, times[first:], list(data.variables), *(part[first:] for part in (each.values, expected, score))
    )


def _rows(each: Scored) -> Iterator[tuple]:
    for step, time in enumerate(each.times):
        for column, variable in enumerate(each.variables):
            numbers = (float(f"{part[step, column]:.6g}") for part in (each.values, each.expected, each.score))
            yield each.series, said_time(time), variable, *numbers, bool(each.score[step, column] > 1)
