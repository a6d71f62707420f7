"""What findings come to: limits, the verdict, the table, the picture."""

from __future__ import annotations

import pytest

from polymamba.benchmarks.gpu.plot import plot
from polymamba.benchmarks.gpu.report import complete, limit, table

CEILINGS = {"bytes_per_second": 3e12, "exponentials_per_second": 4e12, "flops_per_second": 8e14}


def timed(what: str = "kernel", **more) -> dict:
    row = {"case": "scan forward, 1 path, raster order, batch 8, length 512, 4 channels", "what": what, "tokens": 4096}
    row |= {"bytes": 3e9, "exponentials": 8e9, "flops": 0, "ms": 3.0, "spread": 0.01, "rounds": 5, "megabytes": 7.5}
    return {"step": "scan"} | row | more


def results(**more) -> dict:
    found = {
        "date": "2000-01-01",
        "machine": {"card": "any"},
        "ceilings": CEILINGS,
        "steps": [],
        "checks": [],
        "rows": [],
    }
    return found | {"checks": [{"step": "check scan", "check": "first", "ok": True}]} | more


def test_the_limit_is_that_of_the_slowest_unit():
    assert limit(timed(), CEILINGS) == {"limit_ms": 2.0, "limited_by": "exponentials", "times_limit": 1.5}
    assert limit(timed(exponentials=0), CEILINGS) == {"limit_ms": 1.0, "limited_by": "bytes", "times_limit": 3.0}
    assert "times_limit" not in limit(timed("reference"), CEILINGS)
    assert limit(timed(), {}) == {}


def test_right_only_if_every_check_was():
    right = results()
    complete(right)
    assert right["correct"]
    assert right["wrong"] == []
    wrong = results(checks=[{"step": "check scan", "check": "second", "ok": False, "error": "off by one"}])
    complete(wrong)
    assert not wrong["correct"]
    assert wrong["wrong"] == ["second: off by one"]
    nothing = results(checks=[])
    complete(nothing)
    assert not nothing["correct"]


@pytest.mark.parametrize("outcome", ["failed", "timed out", "not run"])
def test_checks_that_did_not_end_are_not_right(outcome):
    found = results(steps=[{"step": "check long", "outcome": outcome, "seconds": 1.0}])
    complete(found)
    assert found["wrong"] == ["check long: not finished"]


def test_a_timed_step_that_failed_leaves_the_checks_right():
    found = results(steps=[{"step": "scan", "outcome": "failed", "seconds": 1.0}])
    complete(found)
    assert found["correct"]


def test_the_table_says_everything():
    first = {"case": "scan", "what": "first call, kernels compiled", "first_call_s": 2.5, "second_call_s": 0.001}
    rows = [timed(), timed("official", times_kernel=1.2), timed("reference", error="OutOfMemoryError: 90 GiB")]
    found = results(rows=[*rows, {"step": "first call"} | first])
    complete(found)
    said = table(found)
    for part in (
        "3.000 ms",
        "1.50 × limit by exponentials",
        "1.20 × kernel",
        "OutOfMemoryError",
        "2.50 s, then 1.0 ms",
        "1 right",
    ):
        assert part in said


def test_picture(tmp_path):
    lengths = [timed(case=f"scan forward, 1 path, raster order, batch 1, length {n}, 4 channels") for n in (512, 1024)]
    found = results(rows=[timed(), timed("official", times_kernel=1.2), timed("none", error="no"), *lengths])
    complete(found)
    plot(found, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 1000
    plot(results(), tmp_path / "nothing.png")
