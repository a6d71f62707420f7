"""From the command line to the exit code, in this process and in one of its own."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from domains_under_test import TOY as TOY_DOMAIN

from ..conftest import OPTIONS

ROOT = Path(__file__).resolve().parents[3]
TOY = ("domain=toy", "trainer.progress=none", "data.samples=20")


def test_train_then_the_commands_it_prints(command, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", [str(ROOT / "train.py")])
    code, printed, _ = command(*TOY)
    assert code == 0
    told = {line.split("  ")[1].strip(): line for line in printed.splitlines() if line.startswith("  ")}
    weights = tmp_path / told["weights"].split()[1]
    assert weights.is_file()
    evaluate = shlex.split(told["test again"].partition("again")[2])
    assert Path(evaluate[1]) == ROOT / "eval.py"
    options = [word for word in evaluate[2:] if word.startswith("--")]
    assert len(options) == 2
    code, table, _ = command(*[word for word in evaluate[2:] if word not in options], job="evaluate")
    assert code == 0
    run = tmp_path / evaluate[-1].removeprefix("ckpt=")
    remembered = json.loads((run / "metrics.json").read_text())["toy_points"]["metrics"]
    assert f"{remembered['test/accuracy']:.4f}" in table
    assert f"{remembered['test/accuracy']:.4f}" in told["test/accuracy"]
    longer = shlex.split(told["train longer"].partition("longer")[2])
    code, printed, _ = command(*[word for word in longer[2:] if not word.startswith("--")])
    assert code == 0
    assert "goes on with a run" in printed


@pytest.mark.slow
def test_another_scan_is_a_command_that_runs(command, monkeypatch):
    monkeypatch.setattr(sys, "argv", [str(ROOT / "train.py")])
    code, printed, _ = command("debug=fast", "run_dir=one", "scan=local", "scan.window=4", "trainer.progress=none")
    assert code == 0
    line = next(line for line in printed.splitlines() if "another scan" in line)
    words = [word for word in shlex.split(line.partition("scan")[2])[2:] if not word.startswith("--")]
    assert words == ["debug=fast", "trainer.progress=none", "scan=cross"]
    assert command(*words)[0] == 0


def test_weights_that_do_not_fit(command):
    assert command(*TOY, "run_dir=run", "debug=fast")[0] == 0
    code, _, message = command("ckpt=run", "data.classes=4", job="evaluate")
    assert code == 2
    assert "weights do not fit" in message


def test_resume_refuses_to_change_what_results_depend_on(command):
    assert command(*TOY, "run_dir=run", "debug=fast")[0] == 0
    code, _, message = command("resume=run", "optimizer.lr=1")
    assert code == 2
    assert "given:   optimizer.lr=1" in message
    assert "trainer.epochs" in message


def test_arguments_in_any_order(command):
    _, one, _ = command("--cfg", "model.hidden=5", "domain=toy", "trainer.epochs=7")
    _, other, _ = command("trainer.epochs=7", "domain=toy", "model.hidden=5", "--cfg")
    assert one == other
    config = yaml.safe_load(one)
    assert (config["model"]["hidden"], config["trainer"]["epochs"]) == (5, 7)


def test_help_names_groups_and_options(command):
    code, printed, _ = command("--help", "domain=toy")
    assert code == 0
    assert "toy_net" in printed
    assert "adamw, sgd" in printed


def test_help_lists_every_key_and_cfg_keeps_the_comments(command):
    _, printed, _ = command("--help", "domain=toy")
    [line] = [line for line in printed.splitlines() if "model.hidden=" in line]
    assert line.split(maxsplit=1)[0] == "model.hidden=8"
    assert "a whole number (at least 1)" in line
    assert "how wide the middle is" in line
    assert "optimizer.betas=[0.9,0.95]" in printed or "optimizer.betas=[0.9,0.999]" in printed
    for job in ("evaluate", "predict"):
        assert "--config-dir=<folder>" in command("--help", job=job)[1]
    _, printed, _ = command("--cfg")
    line = (
        "  time_limit: null  # wall-clock of each start, like 90s, 3m, 1h30m; resuming gives it anew; null: no limit\n"
    )
    assert line in printed
    assert yaml.safe_load(printed)["trainer"]["time_limit"] is None
    _, printed, _ = command("-m", "seed=3,4", "--cfg")
    assert [line for line in printed.splitlines() if line.startswith("seed:")] == ["seed: 3", "seed: 4"]


@pytest.mark.parametrize(
    ("job", "typed"),
    [
        ("train", ("-m", "resume=runs/a", "seed=1,2")), ("evaluate", ("-m", "ckpt=runs/a,runs/b")),
        ("predict", ("-m", "ckpt=runs/a")), ("predict", ("ckpt=runs/a", "--cfg")),
    ],
)  # fmt: skip
def test_an_option_that_a_job_has_no_use_for_is_refused(command, job, typed):
    code, printed, message = command(*typed, job=job)
    assert (code, printed) == (2, "")
    option = "-m" if "-m" in typed else "--cfg"
    assert f"given:   {option}" in message
    assert f"leave {option} out" in message
    assert (f"\n  {option} " in command("--help", job=job)[1]) == (job == "train")


def test_sweep_runs_all_and_prints_a_table(command):
    code, printed, message = command("-m", *TOY, "debug=fast", "model.patch_size=1,3", "run_dir=sweep")
    assert code == 1
    assert "run 2 of 2" in printed
    assert "does not divide" in message
    assert [line for line in printed.splitlines() if "sweep/1" in line and "nan" not in line]


def test_exit_code_of_a_broken_run(command):
    code, _, message = command(*TOY, "model.explode=true")
    assert code == 1
    assert "Traceback" not in message


@pytest.mark.slow
@pytest.mark.parametrize(("number", "expected"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_to_a_real_process(tmp_path, number, expected):
    words = [*OPTIONS, *TOY, "run_dir=run", "trainer.epochs=100000"]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *words], cwd=tmp_path, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(TOY_DOMAIN)},
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "checkpoints" / "last").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(number)
    _, message = process.communicate(timeout=60)
    assert process.returncode == expected
    assert "resume=run" in message
    assert "Traceback" not in message
