"""predict.py: what was typed is checked against the domain's predict.yaml, its function is asked, its answer is shown."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from domains_under_test import TOY

from polymamba.core.errors import UserError
from polymamba.data.loading import Loading
from polymamba.engine.command_line.compose_part import compose_part

from .conftest import OPTIONS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def trained(toy):
    return toy("run_dir=run", "trainer.epochs=1")


def labels(trained):
    from toy.data import Points

    with torch.no_grad():
        inputs = Points(Loading(batch_size=4), samples=20).example(4)[0]
        return trained.task.model.eval().cpu()(inputs).argmax(1).tolist()


def test_the_domains_function_answers(trained, command, tmp_path):
    code, printed, message = command("ckpt=run", "first=1", job="predict")
    found = labels(trained)
    assert (code, message) == (0, "")
    assert (
        printed
        == "\n" + "".join(f"point {each}: {found[each]}\n" for each in (1, 2, 3)) + "  written  run/labels.txt\n\n"
    )
    code, printed, _ = command("ckpt=run", "the", "classes", "trainer.threads=1", "domain=toy", job="predict")
    assert code == 0
    assert (tmp_path / "run" / "labels.txt").read_text() == f"the classes: {found}"


def test_what_could_not_be_answered_is_said_and_the_exit_code_tells(trained, command):
    code, printed, message = command("ckpt=run", "first=3", "count=2", job="predict")
    assert code == 1
    assert "point 3" in printed
    assert message == "there is no point 4\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["say=x"], "predict.py ckpt="),
        (["ckpt=nowhere"], "no such run"),
        (["ckpt=run", "frist=2"], "first=2"),
        (["ckpt=run", "first=-1"], "first is out of range"),
        (["ckpt=run", "count=many"], "count has the wrong type"),
        (["ckpt=run", "count=1.5"], "count has the wrong type"),
        (["ckpt=run", "say="], "say is empty"),
        (["ckpt=run", "data.samples=3"], "given by the weights"),
        (["ckpt=run", "trainer.epochs=3"], "given by the weights"),
        (["ckpt=run", "ckpt=empty"], "no checkpoint in this folder"),
    ],
)
def test_mistakes(trained, command, tmp_path, arguments, said):
    (tmp_path / "empty").mkdir()
    code, printed, message = command(*arguments, job="predict")
    assert (code, printed) == (2, "")
    assert said in message
    assert "Traceback" not in message
    assert not (tmp_path / "run" / "labels.txt").exists()


def test_what_may_be_typed(groups):
    def read(*typed):
        return compose_part("predict", "toy", typed, groups, ["toy"])

    usual = {"_target_": "toy.predict.predict", "input": None, "first": 0, "count": 3, "say": None, "explain": None}
    assert read() == usual
    assert read("first=7", "say=a=b, [c\n") == {**usual, "first": 7, "say": "a=b, [c\n"}
    assert read("say=null", "first=0", "1")["say"] == "1"
    with pytest.raises(UserError, match="_target_"):
        compose_part("predict", "toy", [], groups)


def test_a_run_of_another_machine_reads_its_data_elsewhere(trained, command):
    code, _, message = command("ckpt=run", "data.root=x", job="predict")
    assert (code, "no key 'data.root'" in message) == (2, True), "toy data have no root"


@pytest.mark.slow
def test_the_command_itself(trained, tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / "predict.py"), *OPTIONS, "ckpt=run", "é"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(TOY)}, capture_output=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "labels.txt").read_text().startswith("é: ")
