"""Which column of a table is what, found by its name and what it holds; and columns as numbers that a model can be told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ...core.errors import UserError
from .table import MISSING, Table
from .times import is_time

TIME_NAMES = ("ds", "date", "time", "timestamp", "datetime", "day", "month", "datum", "zeit")
ID_NAMES = ("unique_id", "series_id")
MOST = 64  # values that a text column may have


@dataclass(frozen=True)
class Roles:
    """Names of columns.

    Args:
        time, id: of the time stamps, and of the series (None: the table is wide).
        targets, past, future, static: see csv_file.CSVFile.
        said: what was found, in words.
    """

    time: str
    id: str | None
    targets: Sequence[str]
    past: Sequence[str]
    future: Sequence[str]
    static: Sequence[str]
    said: str


def choose_roles(table: Table, asked: Mapping[str, str | Sequence[str] | None]) -> Roles:
    """The role of every column: as asked, else as its name and its values say.

    Raises:
        UserError: a column that there is not, or with two roles; no time stamps; text where numbers are to be forecast.
    """
    listed = {key: _listed(table, asked[key], key) for key in ("targets", "past", "future", "static")}
    names = list(table.columns)
    taken = [name for group in listed.values() for name in group]
    time = asked["time"] or _time(table, [name for name in names if name not in taken])
    table.column(time, "data.time")
    if is_time([time]):
        raise UserError(
            f"{table.path} has no line of names", given=f"{', '.join(names[:4])} in its first line",
            allowed="names of columns there, like ds,sales", do="write them above the first row",
        )  # fmt: skip
    series = asked["id"] or next((name for name in names if name.lower() in ID_NAMES and name != time), None)
    if series is not None:
        table.column(series, "data.id")
    twice = [name for name in (time, series) if name in taken] + [name for name in taken if taken.count(name) > 1]
    if twice:
        raise UserError(
            "a column has two roles", given=twice[0], do="name it once among data.time, id, targets, past, …"
        )
    rest = [name for name in names if name not in (time, series, *taken)]
    targets = listed["targets"]
    if not targets:
        targets = ["y"] if series is not None and "y" in rest else rest
        for name in targets:
            if table.is_text(name):
                raise UserError(
                    f"column {name!r} of {table.path} holds text, which cannot be forecast", given=repr(table.columns[name][0]),
                    do=f"data.id={name} (a series for each), data.static={name}, or name what is forecast: data.targets=[…]",
                )  # fmt: skip
    if not targets:
        raise UserError(f"{table.path} has no column to forecast", given=", ".join(names), do="data.targets=[…]")
    said = f"times are column {time!r}, " + (f"series column {series!r}, " if series else "")
    said += f"forecast: {', '.join(targets[:8])}{' …' if len(targets) > 8 else ''}"
    unused = [name for name in rest if name not in targets]
    said += f"; not used: {', '.join(unused[:8])}" if unused else ""
    return Roles(time, series, targets, listed["past"], listed["future"], listed["static"], said)


def _listed(table: Table, asked: str | Sequence[str] | None, key: str) -> list[str]:
    found = [asked] if isinstance(asked, str) else [str(each) for each in asked or ()]
    for name in found:
        table.column(name, f"data.{key}")
    return found


def _time(table: Table, names: Sequence[str]) -> str:
    by_name = [name for name in names if name.lower() in TIME_NAMES]
    if by_name:
        return by_name[0]
    found = [name for name in names if is_time(table.columns[name])]
    if len(found) != 1:
        raise UserError(
            f"{table.path} has {'several columns' if found else 'no column'} of time stamps",
            given=", ".join(found or names), do=f"data.time={(found or names)[0]}",
        )  # fmt: skip
    return found[0]


@dataclass(frozen=True)
class Encoding:
    """How a column becomes numbers: minus a mean over a deviation, or a one at its category's place.

    Args:
        mean, deviation: of numbers.
        categories: of text; empty: the column holds numbers.
    """

    mean: float = 0.0
    deviation: float = 1.0
    categories: Sequence[str] = ()

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def encoding_of(table: Table, name: str) -> Encoding:
    """The encoding of a column, by all that it holds.

    Raises:
        UserError: text with more than MOST different values.
    """
    if not table.is_text(name):
        values = table.numbers(name)
        deviation = float(np.nanstd(values))
        return Encoding(float(np.nanmean(values)), deviation if deviation > 0 else 1.0)
    categories = sorted({str(each) for each in table.columns[name] if str(each).lower() not in MISSING})
    if len(categories) > MOST:
        raise UserError(
            f"column {name!r} of {table.path} has too many different values",
            given=f"{len(categories):,}",
            allowed=f"up to {MOST}",
        )
    return Encoding(categories=tuple(categories))


def encode(table: Table, names: Sequence[str], encodings: Mapping[str, Encoding]) -> np.ndarray:
    """Columns as numbers, (rows, features) float64; NaN where nothing stands.

    Raises:
        UserError: text that was not there when the encoding was made, with its line.
    """
    parts = [np.zeros((len(table.lines), 0))]
    for name in names:
        encoding = encodings[name]
        if not encoding.categories:
            parts.append(((table.numbers(name) - encoding.mean) / encoding.deviation)[:, None])
            continue
        places = {category: place for place, category in enumerate(encoding.categories)}
        coded = np.zeros((len(table.lines), len(places)))
        for row, value in enumerate(map(str, table.columns[name])):
            if value in places:
                coded[row, places[value]] = 1
            elif value.lower() in MISSING:
                coded[row] = np.nan
            else:
                raise table.wrong("a value that was not there in training", row, name, ", ".join(encoding.categories))
        parts.append(coded)
    return np.concatenate(parts, 1)
