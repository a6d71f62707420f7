"""How far apart the steps of a series are: found from its time stamps, counted on beyond their end, said to a model as numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...core.errors import UserError

SECONDS = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400, "week": 604_800}
MONTHS = {"month": 1, "quarter": 3, "year": 12}
DAY = SECONDS["day"]
LONGEST_SEASON = 1_500  # steps; finer stamps have the hour as their season


@dataclass(frozen=True)
class Frequency:
    """A whole number of seconds, of working days or of months between steps.

    Args:
        count: how many of the unit.
        unit: "second", "business_day" or "month".
        month_end: of months: the stamps are last days of months, however long those are.
    """

    count: int
    unit: str = "second"
    month_end: bool = False

    def __str__(self) -> str:
        if self.unit != "second":
            return f"{self.count} {self.unit.replace('_', ' ')}{'s' if self.count > 1 else ''}"
        name, size = max((pair for pair in SECONDS.items() if self.count % pair[1] == 0), key=lambda pair: pair[1])
        number = self.count // size
        return f"{number} {name}{'s' if number > 1 else ''}"

    @property
    def season(self) -> int:
        """Steps of the season that such series usually have: a day, a week of days, a year of weeks or months."""
        if self.unit == "business_day":
            return 5
        if self.unit == "month":
            return max(12 // self.count, 1)
        if self.count < DAY:
            day = DAY // self.count
            return day if day <= LONGEST_SEASON else max(3_600 // self.count, 1)
        return 7 if self.count == DAY else 52 if self.count == SECONDS["week"] else 1

    def after(self, start: np.datetime64, steps: int) -> np.ndarray:
        """The stamp `start` and those of the steps that follow it, (steps + 1,) datetime64[s]."""
        return self.at(start, np.arange(steps + 1))

    def at(self, start: np.datetime64, steps: np.ndarray) -> np.ndarray:
        """Stamps that lie so many steps after `start`."""
        start = start.astype("datetime64[s]")
        if self.unit == "second":
            return start + (steps * self.count).astype("timedelta64[s]")
        day, time = start.astype("datetime64[D]"), start - start.astype("datetime64[D]")
        if self.unit == "business_day":
            return np.busday_offset(day, steps * self.count, roll="forward").astype("datetime64[s]") + time
        month = day.astype("datetime64[M]") + steps * self.count
        last = (month + 1).astype("datetime64[D]") - 1
        if self.month_end:
            return last.astype("datetime64[s]") + time
        days = month.astype("datetime64[D]") + (day - day.astype("datetime64[M]").astype("datetime64[D]"))
        return np.minimum(days, last).astype("datetime64[s]") + time

    def positions(self, stamps: np.ndarray) -> np.ndarray:
        """How many steps after the first of them the stamps lie, (stamps,) int64; rounded where they do not fall on a step."""
        stamps = stamps.astype("datetime64[s]")
        if self.unit == "second":
            return np.rint((stamps - stamps[0]).astype(np.int64) / self.count).astype(np.int64)
        if self.unit == "business_day":
            days = stamps.astype("datetime64[D]")
            return np.busday_count(days[0], days).astype(np.int64) // self.count
        months = stamps.astype("datetime64[M]").astype(np.int64)
        return np.rint((months - months[0]) / self.count).astype(np.int64)


def infer(stamps: np.ndarray) -> Frequency:
    """The frequency of stamps that rise and may have gaps, (stamps,) datetime64.

    Raises:
        UserError: fewer than two stamps.
    """
    stamps = stamps.astype("datetime64[s]")
    if len(stamps) < 2:
        raise UserError("a frequency needs two time stamps", given=f"{len(stamps)}")
    days = stamps.astype("datetime64[D]")
    gaps = np.diff(stamps).astype(np.int64)
    if len({int(each) for each in (stamps - days).astype(np.int64)}) == 1:
        monthly = _monthly(days, gaps)
        if monthly is not None:
            return monthly
    values, counts = np.unique(gaps, return_counts=True)
    usual = int(values[counts.argmax()])
    if usual == DAY and len(days) > 5 and np.is_busday(days).all() and (gaps == 3 * DAY).any():
        return Frequency(1, "business_day")
    return Frequency(usual)


def parse(text: str, stamps: np.ndarray) -> Frequency:
    """A frequency as it is written, like "15 minutes", "1 business day" or "3 months".

    Args:
        stamps: (stamps,) datetime64, which say of months whether they are taken at their ends.

    Raises:
        UserError: nothing of that form.
    """
    found = re.fullmatch(
        r"(\d+)?\s*(second|minute|hour|day|week|business[ _]day|month|quarter|year)s?", text.strip().lower()
    )
    count = int(found[1] or 1) if found else 0
    if not count:
        raise UserError(
            "this is no frequency",
            given=f"data.frequency={text}",
            allowed="like 1 hour, 15 minutes, 1 business day, 1 month",
        )
    unit = found[2].replace(" ", "_")
    if unit == "business_day":
        return Frequency(count, unit)
    if unit in MONTHS:
        days = stamps.astype("datetime64[D]")
        ends = bool(((days + 1).astype("datetime64[M]") != days.astype("datetime64[M]")).all())
        return Frequency(count * MONTHS[unit], "month", ends)
    return Frequency(count * SECONDS[unit])


def _monthly(days: np.ndarray, gaps: np.ndarray) -> Frequency | None:
    """Whole months between days, where that is what they are; else None."""
    if gaps.min() < 28 * DAY:
        return None
    months = days.astype("datetime64[M]")
    of_month = (days - months.astype("datetime64[D]")).astype(np.int64)
    ends = (days + 1).astype("datetime64[M]") != months
    if not (ends.all() or len(set(of_month.tolist())) == 1):
        return None
    count = int(np.gcd.reduce(np.diff(months).astype(np.int64)))
    return Frequency(count, "month", bool(ends.all()))


def calendar(stamps: np.ndarray, frequency: Frequency) -> np.ndarray:
    """What the calendar says of each step, each feature from -0.5 to 0.5 (the features of Informer, arXiv 2012.07436).

    Args:
        stamps: (steps,) datetime64.
        frequency: decides which features there are; see `features`.

    Returns:
        (steps, features) float32.
    """
    stamps = stamps.astype("datetime64[s]")
    days, months, years = (stamps.astype(f"datetime64[{unit}]") for unit in "DMY")
    seconds = (stamps - days).astype(np.int64)
    of_year = (days - years.astype("datetime64[D]")).astype(np.int64)
    columns = {
        "minute": seconds // 60 % 60 / 59,
        "hour": seconds // 3_600 / 23,
        "weekday": (days.astype(np.int64) + 3) % 7 / 6,
        "day": (days - months.astype("datetime64[D]")).astype(np.int64) / 30,
        "week": of_year // 7 / 52,
        "year_day": of_year / 365,
        "month": months.astype(np.int64) % 12 / 11,
    }
    return np.stack([columns[name] - 0.5 for name in features(frequency)], 1).astype(np.float32)


def features(frequency: Frequency) -> Sequence[str]:
    """The names of the calendar features at a frequency."""
    if frequency.unit == "month":
        return ("month",)
    if frequency.unit == "second" and frequency.count >= SECONDS["week"]:
        return ("day", "week")
    if frequency.unit == "business_day" or frequency.count >= DAY:
        return ("weekday", "day", "year_day")
    finer = ("minute",) if frequency.count % 3_600 else ()
    return (*finer, "hour", "weekday", "day", "year_day")
