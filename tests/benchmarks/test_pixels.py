"""The side of an image at which two models take as long."""

from __future__ import annotations

import pytest

from polymamba.benchmarks.pixels import crossing


def test_the_crossing_lies_on_the_line_of_logarithms():
    assert crossing([100, 200, 400], [4, 2, 0.5]) == pytest.approx(200 * 2**0.5, abs=0.1)


def test_a_side_that_was_measured_may_be_the_crossing():
    assert crossing([100, 200, 400], [2, 1, 0.5]) == 200


def test_there_may_be_no_crossing():
    assert crossing([100, 200], [3, 2]) is None
    assert crossing([100, 200], [0.9, 0.5]) is None
