from datetime import timedelta

import pytest

from polymamba.core.errors import UserError
from polymamba.engine.training.duration import parse_duration

TIMES = {
    "90s": timedelta(seconds=90),
    "3m": timedelta(minutes=3),
    "1h30m": timedelta(hours=1, minutes=30),
    "2d4s": timedelta(days=2, seconds=4),
    "01:30:05": timedelta(hours=1, minutes=30, seconds=5),
    "100:00:00": timedelta(hours=100),
}


@pytest.mark.parametrize("text", TIMES)
def test_a_time(text):
    assert parse_duration(text) == TIMES[text]


def test_no_limit():
    assert parse_duration(None) is None


@pytest.mark.parametrize("text", ["", "0s", "00:00:00", "soon", "3", "-3m", "1.5h", "30m1h", "1:75:00", "9" * 30 + "d"])
def test_not_a_time(text):
    with pytest.raises(UserError, match="is not a time") as refused:
        parse_duration(text)
    assert "1h30m" in str(refused.value)
