"""What stands in the gaps of a table: `predict.py ckpt=<run of task=imputation> input=loads.csv`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...core.errors import UserError
from ..trained import Answer, Trained
from .imputation import Imputation
from .tables import chosen, said_time, write

COLUMNS = ("series", "time", "variable", "value", "filled")
SHOWN = 12  # gaps that are printed


def fill_gaps(run: Trained, input: str | None, series: Any, target: Path) -> Answer:
    """Fills the gaps of some series, of the run's own data or another file; see predict.predict.

    Raises:
        UserError: data without gaps, a series that there is not, or that is shorter than a window.
    """
    data = run.data if input is None else run.data.again(input)
    data.setup()
    places = chosen([each.name for each in data.series], series)
    if all(
        data.series[place].measured is None or data.series[place].measured[data.series[place].before :].all()
        for place in places
    ):
        raise UserError("there is no gap in these data", given=f"{data.name}", do="input=FILE.csv with empty cells")
    rows = []
    for place in places:
        each = data.series[place]
        values = filled(run.task, data, place)
        times = np.arange(len(values)) if each.stamps is None else data.local(each.stamps)
        for step, time in list(enumerate(times))[each.before :]:
            for column, variable in enumerate(data.variables):
                gap = each.measured is not None and not each.measured[step, column]
                rows.append((each.name, said_time(time), variable, float(f"{values[step, column]:.6g}"), gap))
    write(COLUMNS, rows, target)
    gaps = [row for row in rows if row[-1]]
    lines = [
        f"  {len(gaps):,} of {len(rows):,} values are filled in",
        f"  {'series':<16} {'time':<25} {'variable':<16} {'value':>12}",
    ]
    lines += [
        f"  {name[:16]:<16} {time:<25} {variable[:16]:<16} {value:>12,.6g}"
        for name, time, variable, value, _ in gaps[:SHOWN]
    ]
    return Answer([*lines, *([f"  … and {len(gaps) - SHOWN:,} more"] if len(gaps) > SHOWN else [])], [target])


@torch.no_grad()
def filled(task: Imputation, data: Any, place: int) -> np.ndarray:
    """The values of the series at this place, (steps, variables), in its units, with the model's where none was measured."""
    each, lookback = data.series[place], data.lookback
    number = data.last(place)[2]  # and raises where the series is too short
    if each.measured is None:
        return each.values
    begin, last = sum(len(before.values) for before in data.series[:place]), len(each.values) - lookback
    weight = next(task.model.parameters(), torch.zeros((), device=task.device))
    found = data.scaler.scaled(each.values, number).astype(np.float64)
    # of windows that overlap by half the later one counts
    for start in [*range(0, last, max(lookback // 2, 1)), last]:
        seen = each.measured[start : start + lookback]
        if seen.all():
            continue
        values, marks = task.inputs(data.window(np.array([begin + start]), horizon=0))
        given = (
            values.to(weight),
            torch.from_numpy(seen)[None].to(weight.device),
            None if marks is None else marks.to(weight),
        )
        said = task.filled(*given)[0].cpu().double().numpy()
        found[start : start + lookback][~seen] = said[~seen]
    return np.where(each.measured, each.values, data.scaler.original(found, number))
