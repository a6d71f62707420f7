"""The file behind metrics.csv: columns that grow, kills, rows written twice."""

import csv
import os
import signal
import subprocess
import sys
import textwrap

import pytest
import torch

from polymamba.engine.callbacks import table as module
from polymamba.engine.callbacks.table import Table


def row(step, stage="train", **cells):
    return {"step": step, "epoch": 0, "stage": stage, "seconds": 1.5, **cells}


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_new_columns_join_the_header_and_old_rows_stay(tmp_path):
    table = Table(tmp_path / "metrics.csv")
    table.add(row(1, **{"train/loss": 2.0}))
    table.add(row(2, "val", **{"val/loss": 1.0, "val/accuracy": 0.25}))
    table.add(row(3, **{"train/loss": 1.23456789}))
    rows = read(table.path)
    assert list(rows[0]) == ["step", "epoch", "stage", "seconds", "train/loss", "val/loss", "val/accuracy"]
    assert [r["train/loss"] for r in rows] == ["2", "", "1.23457"]
    assert [r["val/accuracy"] for r in rows] == ["", "0.25", ""]
    assert table.series("train/loss") == ([1, 3], [2.0, 1.23457])
    assert not list(tmp_path.glob("*.tmp"))


def test_every_row_is_on_disk_when_add_returns(tmp_path):
    table = Table(tmp_path / "metrics.csv")
    for step in range(5):
        table.add(row(step, **{"train/loss": torch.tensor(float(step))}))
        assert [r["step"] for r in read(table.path)] == [str(i) for i in range(step + 1)]


def test_a_line_cut_short_is_dropped(tmp_path):
    path = tmp_path / "metrics.csv"
    table = Table(path)
    table.add(row(1, **{"train/loss": 2.0}))
    table.add(row(2, **{"train/loss": 1.5}))
    path.write_text(path.read_text()[:-4])
    again = Table(path)
    assert [r["step"] for r in again.rows] == ["1"]
    again.add(row(2, **{"train/loss": 1.25}))
    assert [(r["step"], r["train/loss"]) for r in read(path)] == [("1", "2"), ("2", "1.25")]


@pytest.mark.parametrize("text", ["", "step,epo", "step,epoch,stage,seconds\n"])
def test_a_file_with_no_rows_yet(tmp_path, text):
    path = tmp_path / "metrics.csv"
    path.write_text(text)
    table = Table(path)
    assert table.rows == []
    table.add(row(1, **{"train/loss": 2.0}))
    assert [r["train/loss"] for r in read(path)] == ["2"]


def test_the_same_step_and_stage_is_written_once(tmp_path):
    table = Table(tmp_path / "metrics.csv")
    for value in (1.0, 2.0):
        table.add(row(3, "val", **{"val/loss": value}))
        table.add(row(3, "train", **{"train/loss": value}))
    rows = read(table.path)
    assert [(r["stage"], r["val/loss"], r["train/loss"]) for r in rows] == [("val", "2", ""), ("train", "", "2")]


def test_keep_until_drops_what_will_come_again(tmp_path):
    table = Table(tmp_path / "metrics.csv")
    for step, stage in [(1, "train"), (2, "train"), (2, "val"), (3, "train"), (2, "test")]:
        table.add(row(step, stage))
    table.keep_until(2)
    assert [(r["step"], r["stage"]) for r in read(table.path)] == [("1", "train"), ("2", "train"), ("2", "val")]


@pytest.mark.parametrize(("step", "kept"), [(0, []), (1, ["0", "1"])])
def test_a_row_of_step_0_is_kept_by_a_run_that_goes_on(tmp_path, step, kept):
    table = Table(tmp_path / "metrics.csv")
    table.add(row(0, "val"))
    table.add(row(1))
    table.keep_until(step)
    assert [r["step"] for r in table.rows] == kept
    assert table.path.exists() == bool(kept)


def test_survives_a_kill(tmp_path):
    code = f"""
        import os, runpy, signal
        Table = runpy.run_path({module.__file__!r})["Table"]
        table = Table({str(tmp_path / "metrics.csv")!r})
        for step in range(1000):
            table.add({{"step": step, "epoch": 0, "stage": "train", "seconds": 0.0, f"column{{step // 10}}": 1.0}})
            if step == 37:
                os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env=os.environ, check=False)
    assert done.returncode == -signal.SIGKILL
    assert [r["step"] for r in read(tmp_path / "metrics.csv")] == [str(i) for i in range(38)]
