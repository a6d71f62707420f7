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
    clock = re.fullmatch(r"(?P<h>\d+):(?P<m>[0-5]\d):(?P<s>[0-5]\d)", text)
    parts = clock or re.fullmatch(r"(?:(?P<d>\d+)d)?(?:(?P<h>\d+)h)?(?:(?P<m>\d+)m)?(?:(?P<s>\d+)s)?", text)
    numbers = {name: int(each or 0) for name, each in parts.groupdict().items()} if parts else {}
    try:
        found = timedelta(
            days=numbers.get("d", 0),
            hours=numbers.get("h", 0),
            minutes=numbers.get("m", 0),
            seconds=numbers.get("s", 0),
        )
    except OverflowError:
        found = timedelta()
    if not found:
        raise UserError(
            "trainer.time_limit is not a time",
            given=text,
            allowed="90s, 3m, 1h30m, 2d, 01:30:00",
            do="trainer.time_limit=3m",
        )
    return found
