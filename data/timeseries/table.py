"""Tables of a user's own: CSV, TSV and Parquet files as columns of text or numbers, with the line that each row stands in."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...core.errors import UserError, closest
from ..files import read

SEPARATORS = (",", ";", "\t", "|")
MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "-", "?"})
POINT = re.compile(r"[+-]?(\d{1,3}(,\d{3})+|\d+)?(\.\d*)?([eE][+-]?\d+)?")
COMMA = re.compile(r"[+-]?(\d{1,3}(\.\d{3})+|\d+)?(,\d*)?([eE][+-]?\d+)?")
THOUSANDS = re.compile(r"[+-]?\d{1,3}([.,])\d{3}")  # 1,234: a thousand and more, or one and a bit


@dataclass(frozen=True)
class Table:
    """Columns of one length.

    Args:
        path: the file.
        columns: by name: lists of text as it stands in the file, or of a Parquet file arrays of what it holds.
        lines: (rows,) the line of each row; of a Parquet file its number from 1.
        decimal: "point" or "comma", as numbers are written in it.
        word: what a row is called: "line" or "row".
    """

    path: Path
    columns: dict[str, Sequence | np.ndarray]
    lines: np.ndarray
    decimal: str
    word: str = "line"

    def wrong(self, what: str, row: int, column: str, allowed: str, do: str | None = None) -> UserError:
        """The error that names a row's place in the file and what stands there."""
        value = self.columns[column][row]
        place = f"{self.path}, {self.word} {self.lines[row]}, column {column!r}"
        return UserError(what, given=f"{value!r} in {place}", allowed=allowed, do=do)

    def column(self, name: str, key: str) -> Sequence:
        """A column by its name.

        Raises:
            UserError: there is none; `key` is the setting that asks for it.
        """
        if name not in self.columns:
            near = closest(name, self.columns)
            raise UserError(
                f"{self.path} has no column {name!r}", given=f"{key}={name}", allowed=list(self.columns),
                do=f"{key}={near}" if near else None,
            )  # fmt: skip
        return self.columns[name]

    def is_text(self, name: str) -> bool:
        """Whether a column holds words: not one of its values is a number."""
        values = self.columns[name]
        if isinstance(values, np.ndarray):
            return values.dtype.kind not in "biuf"
        form = POINT if self.decimal == "point" else COMMA
        found = [value for value in values if value.lower() not in MISSING]
        return bool(found) and not any(form.fullmatch(value) for value in found)

    def numbers(self, name: str) -> np.ndarray:
        """A column as numbers, (rows,) float64; NaN where nothing stands.

        Raises:
            UserError: something else than a number, with its line.
        """
        values = self.columns[name]
        if isinstance(values, np.ndarray):
            if values.dtype.kind not in "biuf":
                raise UserError(f"column {name!r} of {self.path} holds no numbers", given=str(values.dtype))
            return values.astype(np.float64)
        found, form = np.empty(len(values)), POINT if self.decimal == "point" else COMMA
        thousands, mark = (",", ".") if self.decimal == "point" else (".", ",")
        for row, value in enumerate(values):
            if value.lower() in MISSING:
                found[row] = np.nan
                continue
            if not form.fullmatch(value) or not any(map(str.isdigit, value)):
                raise self.wrong(
                    "a number is expected", row, name, f"a number with a decimal {self.decimal}, or nothing"
                )
            found[row] = float(value.replace(thousands, "").replace(mark, "."))
        if np.isinf(found).any():
            raise self.wrong("a number is too large", int(np.isinf(found).argmax()), name, "up to 1e308")
        return found


def read_table(
    path: Path, separator: str | None = None, decimal: str | None = None, encoding: str | None = None
) -> Table:
    """Reads a .csv, .tsv or .txt file (also packed: .gz, .xz), or a .parquet file.

    Args:
        separator: between columns; None: the one that cuts all first lines into as many columns.
        decimal: "point" or "comma"; None: as the numbers show.
        encoding: None: UTF-8, or what a mark at the beginning says.

    Raises:
        UserError: the file cannot be read, a line has more or fewer columns than the first, a name stands there twice.
    """
    if path.suffix == ".parquet":
        return _read_parquet(path)
    text = _decoded(path, read(path), encoding)
    if not text.strip():
        raise UserError(f"{path} is empty", given=f"{path.stat().st_size:,} bytes")
    separator = separator or _separator(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    rows, lines = [], []
    try:
        for row in reader:
            if any(map(str.strip, row)):
                rows.append([each.strip() for each in row])
                lines.append(reader.line_num)
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: {error}") from error
    names = rows[0]
    for row, line in zip(rows, lines, strict=True):
        if len(row) != len(names):
            raise UserError(
                f"{path}, line {line} has another number of columns than the first line", given=len(row),
                allowed=f"{len(names)}, cut at {separator!r}", do="mend the line, or say data.separator",
            )  # fmt: skip
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserError(f"{path}, line {lines[0]}: two columns have one name", given=repr(twice[0]))
    if len(rows) < 2:
        raise UserError(f"{path} has a line of names and nothing else", given=", ".join(names))
    columns = dict(zip(names, map(list, zip(*rows[1:], strict=True)), strict=True))
    found = Table(path, columns, np.array(lines[1:]), decimal or "point")
    return found if decimal else Table(path, columns, found.lines, _decimal(found))


def _read_parquet(path: Path) -> Table:
    import polars

    try:
        frame = polars.read_parquet(path)
    except (OSError, polars.exceptions.PolarsError) as error:
        raise UserError(f"Cannot read {path}: {str(error).splitlines()[0]}") from error
    columns = {}
    for each in frame.get_columns():
        if each.dtype.is_temporal():
            columns[each.name] = [str(value) for value in each.to_list()]
        elif each.dtype.is_numeric() or each.dtype == polars.Boolean:
            columns[each.name] = each.cast(polars.Float64).to_numpy()
        else:
            columns[each.name] = ["" if value is None else str(value) for value in each.to_list()]
    return Table(path, columns, np.arange(1, len(frame) + 1), "point", "row")


def _decoded(path: Path, content: bytes, encoding: str | None) -> str:
    if encoding is None:
        encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(
            f"{path}, line {line} is not {encoding.removesuffix('-sig')}", given=f"byte {content[error.start]:#x}",
            do="data.encoding=latin-1, or whatever the file was written in",
        ) from error  # fmt: skip
    except LookupError as error:
        raise UserError(
            "no such encoding", given=f"data.encoding={encoding}", allowed="utf-8, latin-1, cp1252, …"
        ) from error


def _separator(text: str) -> str:
    """The separator that cuts the first lines into the same number of columns, and into the most of them."""
    first = [line for line in text.splitlines()[:20] if line.strip()]
    best, most = ",", 1
    for separator in SEPARATORS:
        counts = [len(row) for row in csv.reader(first, delimiter=separator)]
        agreeing = sum(count == counts[0] for count in counts)
        if counts and counts[0] > most and agreeing > len(counts) // 2:
            best, most = separator, counts[0]
    return best


def _decimal(table: Table) -> str:
    """How a file's numbers are written.

    Raises:
        UserError: they can be read in two ways.
    """
    doubtful: tuple[int, str] | None = None
    for name, values in table.columns.items():
        for row, value in enumerate(values):
            if "," not in value or not COMMA.fullmatch(value):
                continue
            if not POINT.fullmatch(value):
                return "comma"
            if THOUSANDS.fullmatch(value) and doubtful is None:
                doubtful = (row, name)
    if doubtful is not None:
        clear = any(
            "." in v and POINT.fullmatch(v) and not COMMA.fullmatch(v) for vs in table.columns.values() for v in vs
        )
        if not clear:
            raise table.wrong(
                "a number that can be read in two ways", *doubtful, "a file whose numbers show what their marks mean",
                "data.decimal=point (a thousand and more), or data.decimal=comma",
            )  # fmt: skip
    return "point"
