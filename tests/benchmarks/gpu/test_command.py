"""`make gpu` without a card: steps that fail and hang, what is on disk meanwhile, and the script from end to end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from polymamba.benchmarks.gpu.command import Run, main
from polymamba.benchmarks.gpu.steps import INSIDE, STEPS

ROOT = Path(__file__).resolve().parents[3]
RUN = ROOT / "benchmarks" / "gpu" / "run.py"


def said(*rows: dict, then: str = "") -> list[str]:
    """A step that says so and does this."""
    code = "import json, os, time; out = open(os.environ['ROWS_FILE'], 'a');"
    code += "".join(f"print({json.dumps(json.dumps(row))}, file=out, flush=True);" for row in rows)
    return [sys.executable, "-c", code + then]


MACHINE = (
    "machine",
    "machine",
    20,
    said({"facts": {"card": "A Card, 80 GB"}}, {"ceilings": {"bytes_per_second": 1e9}}),
)
RIGHT = ("checks", "check first", 20, said({"check": "a", "ok": True}))
ROW = {
    "case": "copy",
    "what": "kernel",
    "tokens": 1,
    "bytes": 1e6,
    "ms": 2.0,
    "spread": 0.0,
    "rounds": 5,
    "megabytes": 1.0,
}


def run(folder: Path, *plan, total: float = 60) -> tuple[int, dict]:
    made = Run("cuda", folder, total)
    made.steps(plan, beside=4)
    code = made.finish()
    return code, json.loads((folder / "gpu_a_card_80_gb.json").read_text())


def outcomes(results: dict) -> dict[str, str]:
    return {step["step"]: step["outcome"] for step in results["steps"]}


def test_what_fails_and_what_hangs_takes_nothing_along(tmp_path):
    fails = ("times", "fails", 20, said(ROW, then="raise SystemExit('illegal memory access')"))
    hangs = ("times", "hangs", 2, said(ROW, then="time.sleep(600)"))
    last = ("times", "last", 20, said(ROW))
    code, results = run(tmp_path, MACHINE, RIGHT, fails, hangs, last)
    assert code == 0
    assert outcomes(results) == {
        "machine": "done", "check first": "done", "fails": "failed", "hangs": "timed out", "last": "done",
    }  # fmt: skip
    assert [row["step"] for row in results["rows"]] == ["fails", "hangs", "last"]
    assert all(row["times_limit"] == 2.0 for row in results["rows"])
    assert "illegal memory access" in next(s["message"] for s in results["steps"] if s["step"] == "fails")
    assert (tmp_path / "gpu_a_card_80_gb.png").stat().st_size > 1000


def test_a_wrong_check_is_an_error_at_the_end_and_the_rest_is_still_measured(tmp_path):
    wrong = ("checks", "check second", 20, said({"check": "b", "ok": False, "error": "off by 1"}))
    code, results = run(tmp_path, MACHINE, RIGHT, wrong, ("times", "last", 20, said(ROW)))
    assert code == 1
    assert results["wrong"] == ["b: off by 1"]
    assert len(results["rows"]) == 1


def test_checks_come_before_times_and_results_are_on_disk_after_each_step(tmp_path):
    look = f"import pathlib; found = json.loads(pathlib.Path('{tmp_path}/gpu_a_card_80_gb.json').read_text());"
    look += (
        "print(json.dumps({'case': str([s['step'] for s in found['steps']]), 'what': 'seen', 'error': ''}), file=out)"
    )
    code, results = run(tmp_path, ("times", "looks", 20, said(then=look)), RIGHT, MACHINE)
    assert code == 0
    assert results["rows"][0]["case"] == "['machine', 'check first']"


def test_when_the_time_is_over_the_rest_is_not_begun(tmp_path):
    slow = ("times", "slow", 20, said(ROW, then="time.sleep(600)"))
    code, results = run(tmp_path, MACHINE, RIGHT, slow, ("times", "last", 20, said(ROW)), total=6)
    assert code == 0
    assert outcomes(results) | {"slow": "timed out", "last": "not run"} == outcomes(results)


def test_a_part_of_the_steps_replaces_only_what_it_measured(tmp_path):
    run(tmp_path, MACHINE, RIGHT, ("times", "first", 20, said(ROW)), ("times", "second", 20, said(ROW)))
    _, results = run(tmp_path, MACHINE, ("times", "second", 20, said(ROW | {"ms": 5.0})))
    assert [(row["step"], row["ms"]) for row in results["rows"]] == [("first", 2.0), ("second", 5.0)]
    assert results["correct"]


def test_without_a_card_nothing_is_run_or_written(tmp_path, capfd):
    made = Run("cuda", tmp_path, 60)
    none = ("machine", "machine", 20, said({"facts": {}}, then="raise SystemExit('no card')"))
    made.steps([none, RIGHT], beside=1)
    assert made.finish() == 2
    assert "no card was found" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_step_is_named(capsys):
    assert main(["--only=scam"]) == 2
    assert "no step begins with 'scam'; steps: machine, check scan 1/5" in capsys.readouterr().err


def test_everything_fits_into_nine_minutes():
    checks = max(step.limit for step in STEPS if step.kind == "checks")
    rest = sum(step.limit for step in STEPS if step.kind in ("machine", "tests", "times"))
    assert checks + rest <= 9 * 60
    assert len({step.name for step in (*STEPS, *INSIDE)}) == len(STEPS) + len(INSIDE)


def script(folder: Path, *arguments: str) -> tuple[subprocess.CompletedProcess, dict]:
    """The script, with the interpreter in the card's place, in an interpreter that knows no installed polymamba."""
    done = subprocess.run(
        [sys.executable, RUN, "--device=interpret", f"--out={folder}", "--beside=1", *arguments],
        capture_output=True, text=True, check=False, cwd=folder,
    )  # fmt: skip
    return done, json.loads((folder / "gpu_interpret.json").read_text())


def test_the_script_with_a_stand_in_for_the_card(tmp_path):
    done, results = script(tmp_path, "--only=check convolution 1", "--only=convolution")
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(outcomes(results).values()) == {"done"}
    assert results["ceilings"].keys() == {"bytes_per_second", "exponentials_per_second", "flops_per_second"}
    assert all("ms" in row and "limit_ms" in row for row in results["rows"])
    assert {row["what"] for row in results["rows"]} == {"kernel", "conv1d"}
    assert (tmp_path / "gpu_interpret.png").stat().st_size > 1000


@pytest.mark.slow
def test_every_step_with_a_stand_in_for_the_card(tmp_path):
    done, results = script(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert outcomes(results) == {step.name: "done" for step in STEPS}
    assert results["correct"]
    assert not [row for row in results["rows"] if "error" in row]
    assert {row["step"] for row in results["rows"]} == {step.name for step in STEPS if step.kind == "times"}
