"""Tables of answers as files, and which series are asked for."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import UserError, closest


def write(columns: Sequence[str], rows: Sequence[Sequence[Any]], path: Path) -> None:
    """Writes a table, .csv or .parquet, into a folder that is made where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        import polars

        polars.DataFrame(rows, schema=list(columns), orient="row").write_parquet(path)
        return
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(columns)
        table.writerows(rows)


def chosen(names: Sequence[str], wanted: str | Sequence[str] | None) -> list[int]:
    """The places of the series asked for, by their names; None: all.

    Raises:
        UserError: a series that there is not.
    """
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


def said_time(time: Any) -> str:
    """A time as it is written: a day where it is midnight, the number of a step where there are no times."""
    if isinstance(time, np.datetime64):
        text = str(time.astype("datetime64[s]"))
        return text.removesuffix("T00:00:00").replace("T", " ")
    return str(time)
