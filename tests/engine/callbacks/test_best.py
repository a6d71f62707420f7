"""Which validation is the best: improvements and equals, never NaN."""

import pytest

from polymamba.engine.callbacks.best import is_best


@pytest.mark.parametrize(
    ("value", "best", "direction", "expected"),
    [
        (0.1, None, "max", True), (0.2, 0.1, "max", True), (0.1, 0.1, "max", True), (0.0, 0.1, "max", False),
        (0.2, 0.1, "min", False), (0.1, 0.1, "min", True), (0.0, 0.1, "min", True),
        (float("nan"), None, "max", False), (float("nan"), 0.1, "min", False),
    ],
)  # fmt: skip
def test_is_best(value, best, direction, expected):
    assert is_best(value, best, direction) is expected
