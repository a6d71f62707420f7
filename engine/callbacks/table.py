"""A CSV file of a run's numbers that survives kills and grows new columns."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FIXED = ("step", "epoch", "stage", "seconds")
Row = dict[str, str]


class Table:
    """A CSV file that grows by rows and, where a row brings a new column, by columns.

    Every row is handed to the operating system at once, so a killed process loses none; a last line that was cut short,
    and what is no row at all, is dropped when the file is read again. A row with the step and stage of an earlier one is
    written over it.

    Args:
        path: the file; read where it exists.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self.columns: list[str] = list(FIXED)
        self.rows: list[Row] = []
        self._complete = True
        if self.path.exists():
            self._read()

    def add(self, row: Mapping[str, Any]) -> None:
        """Writes a row: step, epoch, stage, seconds, and any numbers; None is left empty."""
        cells = {name: write_cell(value) for name, value in row.items() if value is not None}
        new = [name for name in cells if name not in self.columns]
        key = (cells["step"], cells["stage"])
        same = [index for index, old in enumerate(self.rows) if (old["step"], old["stage"]) == key]
        self.columns += new
        if same:
            self.rows[same[0]] = {**self.rows[same[0]], **cells}
        else:
            self.rows.append(cells)
        if new or same or not self._complete or not self.path.exists():
            self._rewrite()
            return
        with open(self.path, "a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.columns).writerow(cells)

    def keep_until(self, step: int) -> None:
        """Drops rows of later steps and test results, which a run that goes on there will write again; at 0 the whole file."""
        # A validation amid the gradients of the first step is of step 0, where no run goes on.
        self.rows = [row for row in self.rows if step and int(row["step"]) <= step and row["stage"] != "test"]
        if not self.rows:
            self.columns = list(FIXED)
            self.path.unlink(missing_ok=True)
        elif self.path.exists():
            self._rewrite()

    def series(self, name: str, stage: str | None = None) -> tuple[list[int], list[float]]:
        """Steps and values of a column, empty cells left out, of one stage or of all."""
        rows = [row for row in self.rows if row.get(name) and stage in (None, row["stage"])]
        return [int(row["step"]) for row in rows], [float(row[name]) for row in rows]

    def _read(self) -> None:
        text = self.path.read_text(encoding="utf-8", errors="replace")
        self._complete = text.endswith("\n")
        lines = text.splitlines() if self._complete else text.splitlines()[:-1]
        if not lines:
            return
        reader = csv.DictReader(lines)
        self.columns = list(dict.fromkeys([*FIXED, *(reader.fieldnames or [])]))
        rows = [{name: value for name, value in row.items() if name and value} for row in reader]
        self.rows = [row for row in rows if row.get("step", "").isdecimal() and "stage" in row]
        # Otherwise appending would go on below what somebody else has written.
        self._complete = self._complete and len(self.rows) == len(rows)

    def _rewrite(self) -> None:
        temporary = self.path.with_name(self.path.name + ".tmp")
        try:
            with open(temporary, "w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, self.columns)
                writer.writeheader()
                writer.writerows(self.rows)
            os.replace(temporary, self.path)
        finally:
            temporary.unlink(missing_ok=True)
        self._complete = True


def write_cell(value: Any) -> str:
    """A value as text: whole numbers and words as they are, other numbers with six significant digits."""
    return str(value) if isinstance(value, (int, str)) else f"{float(value):.6g}"
