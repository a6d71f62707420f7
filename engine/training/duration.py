"""Wall-clock times as people write them."""

from __future__ import annotations

import re
from datetime import timedelta

from ...core.errors import UserError


def parse_duration(text: str | None) -> timedelta | None:
    """A wall-clock time: "90s", "3m", "1h30m", "2d", or "hours:minutes:seconds".

    Raises:
        UserError: none of these, no time at all, or centuries.
    """
    if text is None:
        return None
    clock = re.fullmatch(r"(?P<hours>\d+):(?P<minutes>[0-5]\d):(?P<seconds>[0-5]\d)", text)
    units = "".join(rf"(?:(?P<{unit}>\d+){unit[0]})?" for unit in ("days", "hours", "minutes", "seconds"))
    parts = clock or re.fullmatch(units, text)
    try:
        found = timedelta(**{unit: int(number or 0) for unit, number in parts.groupdict().items()}) if parts else None
    except OverflowError:
        found = None
    if not found:
        raise UserError(
            "trainer.time_limit is not a time", given=text, allowed="90s, 3m, 1h30m, 2d, 01:30:00", do="trainer.time_limit=3m"
        )  # fmt: skip
    return found
