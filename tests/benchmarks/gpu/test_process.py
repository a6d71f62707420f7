"""A step in a process of its own: what it found stays, whatever becomes of it."""

from __future__ import annotations

import json
import os
import sys
import time

import pytest

from polymamba.benchmarks.gpu.process import Running, read_rows, write_whole

WRITE = "import os; open(os.environ['ROWS_FILE'], 'a').write('{\"n\": 1}\\n');"


def python(code: str, limit: float = 60) -> Running:
    return Running("step", [sys.executable, "-c", code], limit)


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_step_that_ends_well():
    outcome = python(WRITE).wait()
    assert (outcome.outcome, outcome.rows, outcome.message) == ("done", [{"n": 1}], "")


def test_a_step_that_fails_says_why_and_keeps_its_rows():
    outcome = python(WRITE + "raise SystemExit('no memory left')").wait()
    assert (outcome.outcome, outcome.rows) == ("failed", [{"n": 1}])
    assert outcome.message.splitlines() == ["exit code 1", "no memory left"]


def test_a_step_that_is_killed_by_a_signal_keeps_its_rows():
    outcome = python(WRITE + "os.kill(os.getpid(), 11)").wait()
    assert (outcome.outcome, outcome.rows) == ("failed", [{"n": 1}])
    assert "-11" in outcome.message


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_step_that_hangs_ends_with_everything_it_started(tmp_path):
    code = (
        f"{WRITE} import subprocess, time; child = subprocess.Popen(['sleep', '600']);"
        f"open('{tmp_path / 'pid'}', 'w').write(str(child.pid)); time.sleep(600)"
    )
    outcome = python(code, limit=2).wait()
    assert (outcome.outcome, outcome.rows) == ("timed out", [{"n": 1}])
    assert outcome.seconds < 30
    assert outcome.message.startswith("killed after 2 s")
    child = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 10
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(child)


def test_the_limit_counts_from_the_start_of_a_step():
    running = [python("import time; time.sleep(600)", limit=1) for _ in range(3)]
    begin = time.monotonic()
    assert [step.wait().outcome for step in running] == ["timed out"] * 3
    assert time.monotonic() - begin < 10


def test_rows_up_to_one_that_is_cut_off(tmp_path):
    file = tmp_path / "rows"
    assert read_rows(file) == []
    file.write_text('{"n": 1}\n{"n": 2}\n{"n"')
    assert read_rows(file) == [{"n": 1}, {"n": 2}]


def test_results_are_replaced_whole(tmp_path, monkeypatch):
    file = tmp_path / "results" / "gpu.json"
    write_whole(file, {"n": 1})
    monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_whole(file, {"n": 2})
    assert json.loads(file.read_text()) == {"n": 1}
