"""A person's own table of series: CSV, TSV or Parquet; a column a series, or long with a column that names them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ...core.errors import UserError, check_choice, say_once
from ...core.ranges import Fraction, Size, checked
from ..loading import Loading
from . import regular as steps_of
from .columns import Encoding, choose_roles, encode, encoding_of
from .frequency import Frequency, infer, parse
from .regular import Policies, regular
from .sources import CSV_FILE
from .table import Table, read_table
from .times import check_zone, local, read_times
from .windows import Series, SeriesData, shares

FIRST_LOOKBACK, LEAST, LONGEST = 32, 16, 336  # steps seen where nothing is said: three seasons between these


class CSVFile(SeriesData):
    """The series of one file.

    Wide, every column of numbers is a variable, and all are measured together. Long, a column (`id`, or one called unique_id)
    names the series of each row, which are forecast by one model, each scaled by itself.

    Args:
        loading, step, windows, marks, scale: see SeriesData.
        files: the file.
        time, id: names of the columns of time stamps and of the series; None: found, and said.
        targets: columns that are forecast; None: y where there is one beside an id, else all that have no other role.
        past: columns that are known up to now. future: columns that are known ahead. static: columns that are the same for a
            series at all times. Of the last two, text is told apart by its values.
        lookback, horizon: steps seen and answered; None: three seasons and one, as far as the file allows; said in the plan.
        frequency: like "1 hour", "15 minutes", "1 business day", "1 month"; None: found.
        duplicates, missing, irregular: see regular.Policies.
        time_zone: of stamps without an offset. time_form: of stamps, as strptime takes it; None: found.
        separator, decimal, encoding: see table.read_table.
        val_fraction, test_fraction: shares of each series' steps, at its end.
        name: the data set's name in results.
    """

    source = CSV_FILE

    @checked(group="data")
    def __init__(
        self,
        loading: Loading = Loading(batch_size=32),
        files: str | None = None,
        time: str | None = None,
        id: str | None = None,
        targets: str | list[str] | None = None,
        past: str | list[str] | None = None,
        future: str | list[str] | None = None,
        static: str | list[str] | None = None,
        lookback: Size | None = None,
        horizon: Size | None = None,
        frequency: str | None = None,
        duplicates: Literal["refuse", "first", "last", "mean", "sum"] = "refuse",
        missing: Literal["refuse", "interpolate", "forward", "zero"] = "interpolate",
        irregular: Literal["refuse", "nearest"] = "refuse",
        time_zone: str | None = None,
        time_form: str | None = None,
        separator: str | None = None,
        decimal: Literal["point", "comma"] | None = None,
        encoding: str | None = None,
        val_fraction: Fraction = 0.1,
        test_fraction: Fraction = 0.2,
        step: Size = 1,
        windows: Size | None = None,
        marks: bool = True,
        scale: bool = True,
        name: str = "csv_file",
    ):
        super().__init__(name, loading, lookback or 1, horizon or 1, step, windows, marks, scale)
        if not files:
            raise UserError("csv_file needs a file", do="data.files=FILE.csv")
        for key, value in (("duplicates", duplicates), ("missing", missing), ("irregular", irregular)):
            check_choice(f"data.{key}", value, getattr(steps_of, key.upper()))
        if val_fraction + test_fraction >= 1:
            raise UserError("data.val_fraction and data.test_fraction leave nothing to train on")
        check_zone(time_zone)
        self.path, self.fractions = Path(files).expanduser(), (val_fraction, test_fraction)
        self.asked = {"time": time, "id": id, "targets": targets, "past": past, "future": future, "static": static}
        self.steps_asked, self.frequency_asked = (lookback, horizon), frequency
        self.policies = Policies(duplicates, missing, irregular)
        self.time_zone, self.time_form = time_zone, time_form
        self.reading_options = {"separator": separator, "decimal": decimal, "encoding": encoding}
        self.zone_shown = time_zone
        self.encodings: dict[str, Encoding] = {}
        self.where = str(self.path)
        self._settings = {
            **self.asked, "frequency": frequency, "duplicates": duplicates, "missing": missing, "irregular": irregular,
            "time_zone": time_zone, "time_form": time_form, **self.reading_options, "val_fraction": val_fraction,
            "test_fraction": test_fraction, "step": step, "windows": windows, "marks": marks, "scale": scale, "name": name,
        }  # fmt: skip

    def load(self) -> list[Series]:
        """Read the file; see `SeriesData.load`."""
        table = self._table(self.path)
        roles = choose_roles(table, self.asked)
        self.roles = roles
        self._say(roles.said)
        stamps = read_times(table, roles.time, self.time_form, self.time_zone)
        self.variables, self.targets = [*roles.targets, *roles.past], len(roles.targets)
        names = ["all"] * len(stamps) if roles.id is None else [str(each) for each in table.columns[roles.id]]
        groups = {name: [] for name in sorted(set(names))}
        for row, name in enumerate(names):
            groups[name].append(row)
        self.frequency = self._frequency(stamps, groups)
        self.period = self.frequency.season
        if not self.encodings:
            self.encodings = {column: encoding_of(table, column) for column in (*roles.future, *roles.static)}
        self.known_names = [*roles.future, *roles.static]
        values = np.stack([table.numbers(column) for column in self.variables], 1)
        known = encode(table, self.known_names, self.encodings)
        found = [
            self._series(name, np.array(rows), stamps, values, known, table) for name, rows in groups.items() if rows
        ]
        self._choose_steps(max(len(each.values) for each in found))
        return found

    def _series(
        self, name: str, rows: np.ndarray, stamps: np.ndarray, values: np.ndarray, known: np.ndarray, table: Table
    ) -> Series:
        both = np.concatenate([values, known], 1)[rows]
        where = str(self.path) if self.roles.id is None else f"{self.path}, series {name!r}"
        say = self._say if self.roles.id is None else lambda text: self._say(f"series {name!r}: {text}")
        even, filled, measured = regular(
            stamps[rows], both, table.lines[rows], self.frequency, self.policies, where, say
        )
        width = values.shape[1]
        more = filled[:, width:] if known.shape[1] else None
        ends = shares(len(even), *self.fractions)
        found = Series(name, filled[:, :width], even, ends, more, measured[:, :width])
        return self._joined(self.known_before[name], found) if name in self.known_before else found

    def _joined(self, known: Series, new: Series) -> Series:
        """A series with the steps in front that the run knows of it, where it begins no later than the step behind these.

        So a file of a few new rows is enough: a forecast looks back on what was known before, as it would in one file.
        """
        earlier = int((known.stamps < new.stamps[0]).sum())
        kept = slice(max(earlier - self.lookback, 0), earlier)
        if not earlier or self.frequency.after(known.stamps[earlier - 1], 1)[1] != new.stamps[0]:
            return new
        self._say(f"series {new.name!r} goes on from what is known of it up to {known.stamps[earlier - 1]}")

        def both(part: str) -> np.ndarray | None:
            one, other = getattr(known, part), getattr(new, part)
            return None if one is None or other is None else np.concatenate([one[kept], other])

        values, stamps, more, measured = (both(part) for part in ("values", "stamps", "known", "measured"))
        ends = shares(len(values), *self.fractions)
        return Series(new.name, values, stamps, ends, more, measured, kept.stop - kept.start)

    def known_ahead(
        self, chosen: Sequence[int], steps: int, needed: int, future: str | None = None
    ) -> list[np.ndarray]:
        """See `SeriesData.known_ahead`; the coming values of the future columns come from a file of that form."""
        ahead = self.roles.future
        if not ahead and future is not None:
            raise UserError(
                "the model knows of no column that is known ahead", given=f"future={future}", do="leave future= out"
            )
        if not ahead:
            more = [None if each.known is None else each.known[-1:].repeat(steps, 0) for each in self._of(chosen)]
            return [self._marks_ahead(number, steps, each) for number, each in zip(chosen, more, strict=True)]
        if future is None:
            raise UserError(
                f"the coming {needed} values of {', '.join(ahead)} are needed", given="no file of them",
                do=f"future=FILE.csv with the columns {', '.join([self.roles.time, *ahead])}",
            )  # fmt: skip
        return [self._marks_ahead(number, steps, self._read_ahead(number, steps, needed, future)) for number in chosen]

    def local(self, stamps: np.ndarray) -> np.ndarray:
        """Stamps in the zone of the file, with their offsets, where there is one; see `SeriesData.local`."""
        return stamps if self.zone_shown is None else local(stamps, self.zone_shown)

    def again(self, files: str) -> CSVFile:
        """See `SeriesData.again`."""
        self.setup()
        settings = {
            **self._settings,
            "lookback": self.lookback,
            "horizon": self.horizon,
            "frequency": str(self.frequency),
        }
        found = CSVFile(loading=self.loading, files=files, **settings)
        found.scaler, found.encodings, found.whole = self.scaler, self.encodings, True
        found.known_before = {each.name: each for each in self.series}
        return found

    whole = False  # read to be gone on from: no part of it is tested
    known_before: Mapping[str, Series] = {}  # the series of the run's own data, where this file may go on from them

    def samples(self, split: str) -> int:
        """See `DataModule.samples`."""
        return 0 if self.whole else super().samples(split)

    def _chosen(self, split: str) -> np.ndarray:
        return np.zeros(0, np.int64) if self.whole else super()._chosen(split)

    def about(self) -> dict[str, Any]:
        """What a run keeps of the table: its columns' encodings, and the steps that were chosen."""
        return {
            "lookback": self.lookback, "horizon": self.horizon, "frequency": str(self.frequency),
            "encodings": {column: each.plain() for column, each in self.encodings.items()},
        }  # fmt: skip

    def use(self, about: Mapping[str, Any]) -> None:
        """The way back from `about`."""
        self.encodings = {column: Encoding(**each) for column, each in about.get("encodings", {}).items()}
        asked = self.steps_asked
        self.steps_asked = (asked[0] or about.get("lookback"), asked[1] or about.get("horizon"))
        self.frequency_asked = self.frequency_asked or about.get("frequency")

    @classmethod
    def reading(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """See `DataModule.reading`: what is forecast from what, too."""
        own = {key: settings[key] for key in ("targets", "past", "future", "static") if settings.get(key) is not None}
        return {**super().reading(settings), **own}

    def _table(self, path: Path) -> Table:
        if not path.is_file():
            raise UserError("there is no such file", given=f"data.files={path}")
        return read_table(path, **self.reading_options)

    def _say(self, text: str) -> None:
        say_once(f"{self.path.name}: {text}", (self.path, text))

    def _of(self, chosen: Sequence[int]) -> list[Series]:
        return [self.series[number] for number in chosen]

    def _frequency(self, stamps: np.ndarray, groups: Mapping[str, Sequence[int]]) -> Frequency:
        """The one asked for, else the one that most series have."""
        if self.frequency_asked is not None:
            return parse(self.frequency_asked, stamps)
        found = Counter()
        for rows in groups.values():
            unique = np.unique(stamps[rows])
            if len(unique) > 1:
                found[infer(unique)] += len(unique)
        if not found:
            raise UserError(f"{self.path} holds no series of two time stamps", do="data.frequency='1 day'")
        frequency = found.most_common(1)[0][0]
        self._say(f"a step is {frequency}, a season {frequency.season} steps")
        return frequency

    def _choose_steps(self, longest: int) -> None:
        """Steps seen and forecast: those asked for, else three seasons and one, as far as the longest series allows."""
        train, val_end, end = shares(longest, *self.fractions)
        lookback, horizon = self.steps_asked
        room = max(min(val_end - train, end - val_end), 1)
        self.horizon = horizon or min(max(self.period, 2), room, LONGEST)
        usual = min(max(3 * self.period, FIRST_LOOKBACK), LONGEST)
        self.lookback = lookback or max(min(usual, train // 2), LEAST)

    def _read_ahead(self, number: int, steps: int, needed: int, future: str) -> np.ndarray:
        """The coming values of what is known ahead, (steps, features); behind those needed the last is repeated."""
        table = self._table(Path(future).expanduser())
        roles, each = self.roles, self.series[number]
        for column in (roles.time, *roles.future, *([roles.id] if roles.id else [])):
            table.column(column, "future")
        stamps = read_times(table, roles.time, self.time_form, self.time_zone)
        mine = np.ones(len(stamps), bool)
        if roles.id is not None:
            mine = np.array([str(name) == each.name for name in table.columns[roles.id]])
        wanted = self.after_end(number, steps)
        place = {stamp: row for row, stamp in enumerate(stamps) if mine[row]}
        lacking = [stamp for stamp in wanted[:needed] if stamp not in place]
        if lacking:
            raise UserError(
                f"coming values of {', '.join(roles.future)} are missing in {future}",
                given=f"none for {lacking[0]}{f' of series {each.name!r}' if roles.id else ''}; {len(lacking)} in all",
                allowed=f"one for each of the {needed} steps from {wanted[0]} to {wanted[needed - 1]}",
            )  # fmt: skip
        coded = encode(table, roles.future, self.encodings)
        if np.isnan(coded).any():
            row = int(np.isnan(coded).any(1).argmax())
            raise UserError(f"{future}, {table.word} {table.lines[row]}: a coming value is missing")
        rows = np.array([place[stamp] for stamp in wanted[:needed]])
        ahead = coded[rows]
        ahead = np.concatenate([ahead, ahead[-1:].repeat(steps - needed, 0)])
        static = each.known[-1:, ahead.shape[1] :].repeat(steps, 0)
        return np.concatenate([ahead, static], 1)
