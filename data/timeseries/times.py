"""Time stamps as people write them: one form a column, and never a guess between two that both fit."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np

from ...core.errors import UserError
from .frequency import infer
from .table import Table

DAYS = (
    "%Y/%m/%d",
    "%d.%m.%Y",
    "%d.%m.%y",
    "%d/%m/%Y",
    "%m/%d/%Y",
    "%d-%m-%Y",
    "%m-%d-%Y",
    "%d %b %Y",
    "%b %d, %Y",
    "%d %B %Y",
)
FORMS = ("ISO 8601", *(day + time for day in DAYS for time in ("", " %H:%M", " %H:%M:%S")), "%Y-%m", "%b %Y", "%Y")
TRIED = 200  # values that a form is tried on first


def read_times(table: Table, name: str, form: str | None, zone: str | None) -> np.ndarray:
    """A column of time stamps, (rows,) datetime64[s].

    Args:
        form: as strptime takes it; None: the one that fits all of the column.
        zone: of stamps without an offset, like Europe/Berlin: they are then returned in UTC, as those with an offset are.

    Raises:
        UserError: a stamp that does not fit, with its line; two forms that fit.
    """
    values = [str(value) for value in table.columns[name]]
    fitting = [form] if form else [each for each in FORMS if _fits(values[:TRIED], each)]
    whole = [each for each in fitting if _fits(values, each)]
    if not whole:
        _refuse(table, name, values, form)
    read = [_read(values, each) for each in whole]
    if len(whole) > 1:
        read = _regular(read, table, name, whole)
    stamps = read[0]
    aware = [each.tzinfo is not None for each in stamps]
    if any(aware) and not all(aware):
        raise table.wrong(
            "some stamps have an offset and some have none", aware.index(not aware[0]), name, "one or the other"
        )
    if not any(aware) and zone is not None:
        stamps = _placed(stamps, table, name, zone)
    return np.array(
        [each.astimezone(UTC).replace(tzinfo=None) if each.tzinfo else each for each in stamps], "datetime64[s]"
    )


def local(stamps: np.ndarray, zone: str) -> np.ndarray:
    """Stamps in UTC as text in a zone, with the offset: (steps,) str."""
    place = ZoneInfo(zone)
    moments = (datetime.fromisoformat(str(each)).replace(tzinfo=UTC).astimezone(place) for each in stamps)
    return np.array([each.isoformat(sep=" ") for each in moments])


def is_time(values: Sequence) -> bool:
    """Whether a column can be read as time stamps; numbers alone (years, counts) are none."""
    some = [str(value) for value in values[:TRIED]]
    if isinstance(values, np.ndarray) or all(value.replace(".", "").replace(",", "").isdigit() for value in some):
        return False
    return any(_fits(some, each) for each in FORMS)


def check_zone(zone: str | None) -> None:
    """Raise a UserError where there is no such time zone."""
    if zone is None:
        return
    try:
        ZoneInfo(zone)
    except (KeyError, ValueError, OSError) as error:
        raise UserError("no such time zone", given=f"data.time_zone={zone}", allowed="Europe/Berlin, UTC, …") from error


def _placed(stamps: list[datetime], table: Table, name: str, zone: str) -> list[datetime]:
    """Stamps of a clock on a wall, in their zone; of an hour that the clock shows twice the second is the one behind the first."""
    place, found = ZoneInfo(zone), []
    for row, each in enumerate(stamps):
        here = each.replace(tzinfo=place)
        if here.astimezone(UTC).astimezone(place).replace(tzinfo=None) != each:
            raise table.wrong("the clocks skip this time", row, name, f"times that there are in {zone}")
        # naive stamps of the autumn hour: the second time it comes
        if found and each <= found[-1].replace(tzinfo=None) and here.utcoffset() != here.replace(fold=1).utcoffset():
            here = here.replace(fold=1)
        found.append(here)
    return found


def _fits(values: Sequence[str], form: str) -> bool:
    return all(_one(value, form) is not None for value in values)


def _read(values: Sequence[str], form: str) -> list[datetime]:
    return [_one(value, form) for value in values]


def _one(value: str, form: str) -> datetime | None:
    try:
        return datetime.fromisoformat(value) if form == "ISO 8601" else datetime.strptime(value, form)
    except ValueError:
        return None


def _regular(read: list[list[datetime]], table: Table, name: str, forms: Sequence[str]) -> list[list[datetime]]:
    """Of several readings the one whose steps are even, where there is just one of them."""
    even = []
    for each in read:
        stamps = np.unique(np.array([stamp.replace(tzinfo=None) for stamp in each], "datetime64[s]"))
        if len(stamps) > 2:
            frequency = infer(stamps)
            if np.array_equal(frequency.at(stamps[0], np.arange(len(stamps))), stamps):
                even.append(each)
    if len(even) != 1:
        raise table.wrong(
            "dates that can be read in two ways", 0, name, "dates of one meaning, like 2024-12-31",
            " or ".join(f"data.time_form='{form}'" for form in forms),
        )  # fmt: skip
    return even


def _refuse(table: Table, name: str, values: Sequence[str], form: str | None) -> None:
    """Raise the error for a column that no form fits, which names the first line that the best of them does not fit."""
    forms = [form] if form else list(FORMS)
    best = max(forms, key=lambda each: sum(_one(value, each) is not None for value in values))
    row = next(row for row, value in enumerate(values) if _one(value, best) is None)
    fits = sum(_one(value, best) is not None for value in values)
    raise table.wrong(
        "this is no time stamp of the form that the others have" if fits else "this is no time stamp", row, name,
        best if fits else "like 2024-12-31 or 31.12.2024 23:45",
        None if form else "make the column's stamps all of one form, or name it: data.time_form='%d/%m/%Y'",
    )  # fmt: skip
