"""The table of several runs: repetitions have a mean and a deviation, and may answer together."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from polymamba.engine.command_line.groups import Groups
from polymamba.engine.command_line.options import Options
from polymamba.engine.command_line.sweep import repeated, table, together

FOLDS = [[f"data.fold={number}", "model=a", f"run_dir=runs/{number}"] for number in range(3)]
ROWS = [(typed, {"test/dice": dice}, f"runs/{dice}") for typed, dice in zip(FOLDS, (0.5, 0.6, 0.7), strict=True)]


@pytest.mark.parametrize(
    ("runs", "found"),
    [
        (FOLDS, True),
        ([["seed=1"], ["seed=2"]], True),
        ([["seed=1", "data.fold=0"], ["seed=2", "data.fold=1"]], True),
        ([["model=a"], ["model=b"]], False),
        ([["seed=1", "model=a"], ["seed=2", "model=b"]], False),
        ([["seed=1"]], False),
    ],
)
def test_which_runs_are_repetitions(runs, found):
    assert repeated(runs) is found


def test_repetitions_have_a_mean_and_a_deviation():
    lines = table(ROWS).splitlines()
    assert lines[-2].split() == ["0.6000", "mean", "of", "3"]
    assert lines[-1].split() == ["0.1000", "standard", "deviation", "of", "3"]
    broken = [*ROWS[:2], (FOLDS[2], None, "broke down")]
    assert table(broken).splitlines()[-2].split() == ["0.5500", "mean", "of", "2"]
    others = [(["model=a"], {"test/dice": 0.5}, "a"), (["model=b"], {"test/dice": 0.6}, "b")]
    assert "mean" not in table(others)


def test_runs_that_can_answer_together_say_how():
    options = Options([])
    said = together(ROWS, SimpleNamespace(domain="toy"), options)
    assert said == ""
    several = [
        file.parent.name
        for folder in Groups().folders
        for file in folder.glob("*/predict.yaml")
        if "several: true" in file.read_text()
    ]
    for domain in several:
        said = together(ROWS, SimpleNamespace(domain=domain), options)
        assert "predict.py ckpt=runs/0.5,runs/0.6,runs/0.7" in said
        assert together(ROWS[:1], SimpleNamespace(domain=domain), options) == ""
    assert several
