"""The arithmetic of comparisons, and that every suite's results can be drawn."""

from __future__ import annotations

import pytest

from polymamba.benchmarks.__main__ import chosen
from polymamba.benchmarks.plot import _threads, plot
from polymamba.benchmarks.timing import Comparison, compare, row
from polymamba.core.errors import UserError


def test_ratio_is_taken_within_rounds():
    measured = Comparison({"a": [1.0, 30.0, 3.0], "b": [2.0, 10.0, 1.5]})
    assert measured.ratio("a", "b") == 2.0
    assert measured.median("a") == 3.0
    assert row("s", "c", measured, "a", "b")["ratio"] == 2.0


def test_functions_run_in_turn():
    calls = []
    measured = compare({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=2, warmup=1)
    assert calls == ["a", "b"] * 3
    assert len(measured.seconds["a"]) == 2


def test_plot(tmp_path):
    measured = Comparison({"a": [2.0], "b": [1.0]})
    lengths = [
        row("length", f"{what}, length {n}", measured, "a", "b", microseconds_per_token=n / 100)
        for what in ("forward", "forward+backward")
        for n in (512, 1024)
    ]
    results = {"rows": [row("scan", "forward", measured, "a", "b"), *lengths], "date": "2000-01-01"}
    results["machine"] = {"processor": "any", "threads": 2}
    plot(results, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000


def test_threads_are_named_where_they_differ():
    assert _threads({"threads": 1}, 2) == ", 1 thread"
    assert _threads({"threads": 4}, 2) == ", 4 threads"
    assert _threads({"threads": 2}, 2) == _threads({}, 2) == ""


def test_unknown_suite():
    with pytest.raises(UserError, match="unknown suite 'scam'"):
        chosen(["scam"])
