"""Every forecaster is timed beside every baseline, and none of them is left out."""

from polymamba.benchmarks.__main__ import SUITES
from polymamba.benchmarks.timeseries import BASELINES, CASES, timeseries_suite


def test_each_model_beside_each_baseline():
    rows = list(
        timeseries_suite("cpu", cases=((32, 3),), batch=1, rounds=1, names=("smamba", "itransformer", "dlinear"))
    )
    assert [(row["what"], row["against"]) for row in rows] == [("smamba", "itransformer"), ("smamba", "dlinear")] * 2
    assert {row["case"].split(",")[0] for row in rows} == {"forecast", "training step"}
    assert all(row["ratio"] > 0 and row["parameters"] > 0 for row in rows)


def test_the_cases_reach_from_a_small_table_to_a_large_one():
    assert SUITES["timeseries"] is timeseries_suite
    assert {96, 6144} <= {lookback for lookback, _ in CASES}
    assert {7, 862} <= {variables for _, variables in CASES}
    assert set(BASELINES) == {"itransformer", "patchtst", "dlinear"}
