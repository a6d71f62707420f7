"""Tables of events in files: CSV, TSV, Parquet and RecBole's atomic files, checked before anything is learnt from them."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...core.errors import UserError, closest
from .catalogue import Catalogue
from .histories import Log

if TYPE_CHECKING:
    import polars as pl

KNOWN = {  # names that a column is found by, the likeliest first
    "user": ("user", "user_id", "userid", "uid", "customer", "customer_id", "session", "session_id", "visitor_id"),
    "item": ("item", "item_id", "itemid", "iid", "product", "product_id", "article_id", "movie_id", "movieid", "asin"),
    "time": ("time", "timestamp", "ts", "datetime", "date", "t"),
    "behaviour": ("behaviour", "behavior", "event", "event_type", "action", "type"),
    "weight": ("weight", "rating", "score"),
}
SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "\t", ".inter": "\t", ".item": "\t"}
FORMS = (".csv", ".tsv", ".txt", ".inter and .item (RecBole's)", ".parquet", "and these with .gz, but for .parquet")


@dataclass(frozen=True)
class Columns:
    """Names of the columns of a table; None: found by their usual names, and left out where there is none (but user and item).

    Args:
        user, item: ids, kept as they are. time: seconds, or a date. behaviour: what kind of event. weight: a number.
    """

    user: str | None = None
    item: str | None = None
    time: str | None = None
    behaviour: str | None = None
    weight: str | None = None


def read_table(path: Path, columns: Columns) -> pl.DataFrame:
    """A table's events, in its own order: user, item (strings), and where there are any time (int64 seconds), behaviour
    (strings), weight (float64).

    Raises:
        UserError: naming file, column and line of what is wrong.
    """
    import polars as pl

    frame = read_file(path)
    chosen = _choose(path, frame.columns, columns)
    frame = frame.select([pl.col(source).alias(name) for name, source in chosen.items()])
    if not frame.height:
        raise UserError(f"{path} has no events", given="a table without rows")
    for name in ("user", "item", "behaviour"):
        if name in frame.columns:
            frame = frame.with_columns(_ids(frame[name], path, chosen[name]))
    if "time" in frame.columns:
        frame = frame.with_columns(_seconds(frame["time"], path, chosen["time"]))
    if "weight" in frame.columns:
        frame = frame.with_columns(_numbers(frame["weight"], path, chosen["weight"]))
    return frame


def to_log(frame: pl.DataFrame, path: Path, behaviours: Sequence[str] = ()) -> Log:
    """A table's events as a log whose parts are all 0, each user's in order of time (without times: in the table's).

    Args:
        behaviours: the kinds of events that are known, where that is fixed already: others get number 0.

    Raises:
        UserError: the same event twice: a user's item at the same time.
    """
    import polars as pl

    names = [name for name in ("user", "item", "time", "behaviour") if name in frame.columns]
    frame = frame.with_row_index("line")
    if "time" in frame.columns:
        twice = frame.filter(~pl.struct(names).is_first_distinct())
        if twice.height:
            raise UserError(
                f"{path} has the same event more than once", allowed="a user's item once at a time", do="data.duplicates=drop",
                given=f"{twice.height:,} rows, the first {_line(path, twice['line'][0])}",
            )  # fmt: skip
    users = frame["user"].unique(maintain_order=True)
    order = pl.DataFrame({"user": users, "number": range(len(users))})
    frame = frame.join(order, on="user", maintain_order="left").sort(
        ["number", "time", "line"] if "time" in frame.columns else ["number", "line"]
    )
    ids = sorted(frame["item"].unique().to_list())
    numbers = pl.DataFrame({"item": ids, "item_number": range(1, len(ids) + 1)})
    items = frame.join(numbers, on="item", maintain_order="left")["item_number"].to_numpy().astype(np.int64)
    kinds, kind_numbers = [], None
    if "behaviour" in frame.columns:
        kinds = list(behaviours) or sorted(frame["behaviour"].unique())
        known = {kind: number for number, kind in enumerate(kinds, 1)}
        kind_numbers = np.array([known.get(each, 0) for each in frame["behaviour"]], np.int64)
    return Log(
        offsets=np.concatenate([[0], np.cumsum(np.bincount(frame["number"].to_numpy(), minlength=len(users)))]),
        items=items,
        parts=np.zeros(len(items), np.int8),
        catalogue=Catalogue(ids, np.zeros(len(ids) + 1, np.int64), kinds),
        times=frame["time"].to_numpy().astype(np.int64) if "time" in frame.columns else None,
        behaviours=kind_numbers,
        users=users.to_list(),
    )


def read_file(path: Path) -> pl.DataFrame:
    """A table as it stands in a file; text columns are not interpreted."""
    import polars as pl

    suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if suffix not in SEPARATORS and path.suffix != ".parquet":
        raise UserError("a table of this form cannot be read", given=path, allowed=FORMS)
    try:
        if path.suffix == ".parquet":
            return pl.read_parquet(path)
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            content = file.read()
        content.decode("utf-8")
        if not content.strip():
            raise UserError(
                f"{path} is empty", given=f"{len(content)} bytes", allowed="a header line and a row an event"
            )
        # read as text: ids like 007 and 1e5 are kept, and what is wrong can be named by its line
        return pl.read_csv(content, separator=SEPARATORS[suffix], infer_schema=False)
    except UserError:
        raise
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8: {error.reason} at byte {error.start:,}", given=path) from error
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}", given=path) from error
    except pl.exceptions.PolarsError as error:
        raise UserError(f"{path} is no table: {str(error).splitlines()[0]}", given=path, allowed=FORMS) from error


def _choose(path: Path, names: Sequence[str], columns: Columns) -> dict[str, str]:
    """What each kind of column is called in the table; RecBole's `user_id:token` is user_id."""
    plain = {name.split(":")[0].strip().lower(): name for name in reversed(names)} | {name: name for name in names}
    chosen = {}
    for each in fields(columns):
        said = getattr(columns, each.name)
        if said is not None and said not in plain:
            near = closest(said, names)
            raise UserError(
                f"{path} has no column {said!r}", given=f"data.columns.{each.name}={said}", allowed=list(names),
                do=f"data.columns.{each.name}={near}" if near else None,
            )  # fmt: skip
        found = said or next((name for name in KNOWN[each.name] if name in plain), None)
        if found is not None:
            chosen[each.name] = plain[found]
        elif each.name in ("user", "item"):
            raise UserError(
                f"{path}: which column is the {each.name}?", given=list(names), allowed=f"one called {', '.join(KNOWN[each.name])}",
                do=f"data.columns.{each.name}=NAME",
            )  # fmt: skip
    if len(set(chosen.values())) < len(chosen):
        raise UserError(f"{path}: one column cannot be two things", given=chosen)
    return chosen


def _ids(values: pl.Series, path: Path, name: str) -> pl.Series:
    import polars as pl

    if values.dtype.is_float():
        odd = values.is_nan() | values.is_null() | (values != values.floor())
        _refuse(path, name, values, odd, "ids are not numbers with fractions")
        values = values.cast(pl.Int64)
    text = values.cast(pl.String).str.strip_chars()
    missing = text.is_null() | text.str.to_lowercase().is_in(["", "nan", "null", "none"])
    _refuse(path, name, text, missing, "an id is missing")
    return text.alias(values.name)


def _seconds(values: pl.Series, path: Path, name: str) -> pl.Series:
    import polars as pl

    if values.dtype.is_temporal():
        found = values.cast(pl.Datetime("us")).dt.epoch("s")
    else:
        found = values.cast(pl.Float64, strict=False)
        if values.dtype == pl.String and found.null_count():
            dates = values.str.to_datetime(strict=False, time_zone=None) if _looks_like_dates(values) else None
            if dates is not None:
                _refuse(path, name, values, dates.is_null(), "not a time")
                return dates.dt.epoch("s").alias(values.name)
        _refuse(path, name, values, found.is_null() | ~found.fill_null(0).is_finite(), "not a time")
        # epochs in milliseconds, microseconds or nanoseconds lie far beyond any date in seconds
        most = float(found.abs().max())
        found = (found / next((unit for unit in (1e9, 1e6, 1e3) if most / unit > 1e8), 1)).floor().cast(pl.Int64)
    _refuse(path, name, values, found.is_null(), "not a time")
    return found.alias(values.name)


def _looks_like_dates(values: pl.Series) -> bool:
    import polars as pl

    first = values.drop_nulls()[:1]
    try:
        return len(first) == 1 and first.str.to_datetime(strict=False).null_count() == 0
    except pl.exceptions.PolarsError:
        return False


def _numbers(values: pl.Series, path: Path, name: str) -> pl.Series:
    import polars as pl

    found = values.cast(pl.Float64, strict=False)
    _refuse(path, name, values, found.is_null() | ~found.fill_null(0).is_finite(), "not a number")
    return found.alias(values.name)


def _refuse(path: Path, name: str, values: pl.Series, wrong: pl.Series, problem: str) -> None:
    if wrong.any():
        row = wrong.arg_max()
        raise UserError(
            f"{path}, {_line(path, row)}, column {name!r}: {problem}", given=repr(values[row]),
            allowed=None if wrong.sum() == 1 else f"{wrong.sum():,} rows are like that",
        )  # fmt: skip


def _line(path: Path, row: int) -> str:
    return f"row {row + 1:,}" if path.suffix == ".parquet" else f"line {row + 2:,}"
