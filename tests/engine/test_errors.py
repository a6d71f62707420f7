"""What is typed wrongly gets one message that says what to type, and exit code 2."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STAND_INS = Path(__file__).resolve().parent / "stand_ins"

WRONG = {
    "unknown option of a group": ("model=toy_ne", ["there is no model 'toy_ne'", "toy_net", "do:      model=toy_net"]),
    "model of another domain": (
        "model=toy_other",
        [
            "model 'toy_other' belongs to elsewhere, not to toy",
            "model of toy:",
            "do:      domain=elsewhere model=toy_other",
        ],
    ),
    "unknown domain": (
        "domain=toyy",
        ["there is no domain 'toyy'", "allowed: elsewhere, nlp, toy, vision", "do:      domain=toy"],
    ),
    "misspelt group": ("modle=toy_net", ["there is no key or group 'modle'", "do:      model=toy_net"]),
    "misspelt key": ("trainer.epohcs=3", ["there is no key 'trainer.epohcs'", "do:      trainer.epochs=3"]),
    "misspelt key of the model": ("model.hiden=3", ["'model.hiden'", "model.dropout", "do:      model.hidden=3"]),
    "misspelt key of the data": ("data.batchsize=4", ["'data.batchsize'", "do:      data.batch_size=4"]),
    "misspelt key of the task": ("task.label_smothing=0.1", ["do:      task.label_smoothing=0.1"]),
    "key without its group": ("epochs=3", ["there is no key or group 'epochs'", "do:      trainer.epochs=3"]),
    "dashes": ("--epochs=3", ["there is no option '--epochs=3'", "key=value"]),
    "no equals sign": ("toy_net", ["not of the form key=value", "given:   toy_net"]),
    "unreadable value": ("data=[1", ["cannot be read", "given:   data=[1"]),
    "wrong type": ("trainer.epochs=three", ["wrong type", "'three' (a word)", "allowed: a whole number"]),
    "wrong type in the model": ("model.hidden=wide", ["model.hidden has the wrong type", "allowed: a whole number"]),
    "wrong length": ("optimizer.betas=[0.9]", ["optimizer.betas", "a list of 2"]),
    "out of range": ("trainer.epochs=0", ["out of range", "given:   0", "allowed: at least 1"]),
    "unknown word": (
        "trainer.precision=bf15",
        ["no option 'bf15'", "auto, 32, bf16", "do:      trainer.precision=bf16"],
    ),
    "several values": ("seed=1,2", ["need -m", "do:      python train.py -m seed=1,2"]),
    "a group that a run needs": ("trainer=null", ["a run needs a trainer", "allowed: default"]),
    "deleted": ("~model", ["nothing can be deleted"]),
    "interpolation": ("data.seed=${oops}", ["do not fit together", "oops"]),
    "unknown experiment": ("experiments=nothing", ["there is no experiments 'nothing'"]),
    "sizes that do not fit": (
        "model.patch_size=3",
        ["does not divide", "model.patch_size=3", "do:      model.patch_size=2"],
    ),
    "not a time": ("trainer.time_limit=soon", ["trainer.time_limit is not a time", "1h30m"]),
    "several devices": ("trainer.devices=2", ["one process each", "torchrun --nproc-per-node=2"]),
    "run to resume not there": ("resume=runs/toy", ["no such run or checkpoint", "given:   resume=runs/toy"]),
    "target not on the list": ("model=toy_hostile", ["may be built", "os.system", "polymamba.domains.*"]),
    "folder in use": ("run_dir=.", ["in use"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_one_message_and_exit_code_2(case, command, tmp_path):
    argument, parts = WRONG[case]
    (tmp_path / "something").touch()
    code, printed, message = command("domain=toy", argument)
    assert code == 2
    for part in parts:
        assert part in message
    assert "Traceback" not in message + printed
    assert message.count("given:") <= 1
    assert sorted(os.listdir(tmp_path)) == ["something"]


def test_eval_without_checkpoint(command):
    code, _, message = command(job="evaluate")
    assert code == 2
    assert "ckpt=<run folder or checkpoint>" in message


def test_eval_of_a_run_that_is_not_there(command):
    code, _, message = command("ckpt=runs/nowhere", job="evaluate")
    assert code == 2
    assert "given:   ckpt=runs/nowhere" in message


def test_mistakes_are_found_before_torch_is_loaded(tmp_path):
    program = "import sys; from polymamba.engine.command_line.main import main; code = main(); print('torch' in sys.modules, code)"
    result = subprocess.run(
        [sys.executable, "-c", program, f"--config-dir={STAND_INS / 'configs'}", "--allow=toy", "domain=toy", "model.hiden=3"],
        env={**os.environ, "PYTHONPATH": str(STAND_INS)}, cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert result.stdout.split() == ["False", "2"]


def test_train_py_exits_with_2(tmp_path):
    words = [
        str(ROOT / "train.py"),
        f"--config-dir={STAND_INS / 'configs'}",
        "--allow=toy",
        "domain=toy",
        "modle=toy_net",
    ]
    result = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    assert "do:      model=toy_net" in result.stderr
