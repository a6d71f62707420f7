"""What people type wrongly, by kind: the exit code, what the message must hold, and that nothing is left behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from domains_under_test import NAMES, TOY
from refusals import each, messages

from .conftest import OPTIONS

ROOT = Path(__file__).resolve().parents[2]
HUGE = "9" * 400

# group.key=value: words of the message. Nothing of these needs torch.
OUT_OF_RANGE = {
    **each(["model.hidden=0", "data.batch_size=0", "data.batch_size=-8", "data.limit=0"], ["at least 1"]),
    **each(["optimizer.betas=[1,1]", "optimizer.betas=[0.9,2]", "optimizer.betas=[-1,0.9]"], ["0 to below 1"]),
    **each(["seed=-1", "seed=18446744073709551616", f"seed={HUGE}"], ["seed"]),
    **each(["trainer.threads=100000", "trainer.threads=0", "trainer.devices=0"], ["1 to 1,024"]),
    **each(["data.workers=-1", "data.workers=100000"], ["0 to 1,024"]),
    **each(["trainer.epochs=0", "trainer.epochs=-3", "trainer.steps=0", "trainer.accumulate=0", "trainer.val_every=0",
            "trainer.val_every_steps=0", "trainer.log_every=0", "trainer.checkpoint_every=0", "trainer.limit_train=0",
            "trainer.limit_val=-1", "trainer.limit_test=0"], ["at least 1"]),
    "trainer.epochs=4294967296": ["2,147,483,647"],
    **each(["optimizer.lr=-1", "optimizer.weight_decay=-0.1", "optimizer.warmup=-1", "trainer.overfit=-1"],
           ["at least 0"]),
    **each(["optimizer.lr=nan", "optimizer.lr=inf", "optimizer.lr=1e400", "optimizer.lr=-inf", "trainer.gradient_clip=nan",
            "optimizer.weight_decay=inf", "optimizer.warmup=nan"], ["out of range"]),
    **each(["optimizer.eps=0", "trainer.gradient_clip=0"], ["above 0"]),
    **each(["trainer.ema=1", "trainer.ema=1.5"], ["0 to below 1"]),
    "optimizer.final_lr=2": ["0 to 1"],
}  # fmt: skip
WRONG_TYPE = {
    **each(["trainer.epochs=abc", "trainer.epochs=[1]", "trainer.epochs={}", "trainer.epochs=true", "trainer.epochs=null",
            "trainer.epochs=1.5", "trainer.epochs=", "trainer.threads=two", "trainer.epochs='1'"],
           ["wrong type", "a whole number"]),
    "trainer.epochs=three": ["trainer.epochs has the wrong type", "given:   'three' (a word)", "allowed: a whole number"],
    **each(["model.hidden=null", "model.hidden=16.0", "model.hidden=true", "model.hidden=wide", "model.hidden=[16]",
            "data.batch_size=null", "data.batch_size=64.0", "seed=null", "seed=1.0", "seed=zero", "seed={}"],
           ["wrong type", "a whole number"]),
    **each(["optimizer.lr=fast", "optimizer.lr=null", "optimizer.lr=[0.1]", "optimizer.lr=true", "optimizer.lr=",
            "model.dropout=null"], ["wrong type", "a number"]),
    **each(["trainer.pictures=1", "trainer.deterministic=perhaps", "model.explode=2"], ["wrong type", "true or false"]),
    **each(["optimizer.betas=0.9", "optimizer.betas=[a,b]", "optimizer.betas={}"], ["optimizer.betas"]),
    **each(["optimizer.betas=[]", "optimizer.betas=[0.9]", "optimizer.betas=[0.9,0.9,0.9]"],
           ["wrong type", "a list of 2"]),
    "run_dir=": ["is empty", "do:      run_dir=null"],
    **each(["trainer.accelerator=tpu", "trainer.precision=64", "trainer.precision=16", "trainer.progress=fancy",
            "optimizer.schedule=linear"], ["no option"]),
    "trainer.precision=bf15": ["no option 'bf15'", "auto, 32, bf16", "do:      trainer.precision=bf16"],
    **each(["trainer.time_limit=0s", "trainer.time_limit=soon", "trainer.time_limit=1x", "trainer.time_limit=00:00:00",
            "trainer.time_limit=99999999999999999999d"], ["not a time", "1h30m"]),
    **each(["trainer=[1]", "model=[1]", "optimizer={lr:1}"], ["there is no"]),
    **each(["model=null", "data=null", "task=null", "optimizer=null", "domain=null"], ["a run needs a"]),
    "trainer=null": ["a run needs a trainer", "allowed: default"],
}  # fmt: skip
MISSPELT = {
    "lr=0.1": ["do:      optimizer.lr=0.1"],
    "optimiser.lr=0.1": ["do:      optimizer.lr=0.1"],
    "optimizer.learning=0.1": ["no key 'optimizer.learning'"],
    "epohcs=3": ["do:      trainer.epochs=3"],
    "epochs=3": ["there is no key or group 'epochs'", "do:      trainer.epochs=3"],
    "trainer.epohcs=3": ["there is no key 'trainer.epohcs'", "do:      trainer.epochs=3"],
    "train.epochs=1": ["do:      trainer.epochs=1"],
    "weight_decay=0.1": ["do:      optimizer.weight_decay=0.1"],
    "threads=1": ["do:      trainer.threads=1"],
    "batch_size=3": ["do:      data.batch_size=3"],
    "batchsize=3": ["do:      data.batch_size=3"],
    "data.batchsize=4": ["'data.batchsize'", "do:      data.batch_size=4"],
    "hidden=2": ["do:      model.hidden=2"],
    "modle.hidden=4": ["do:      model.hidden=4"],
    "model.hiden=3": ["'model.hiden'", "model.dropout", "do:      model.hidden=3"],
    "label_smoothing=0.1": ["do:      task.label_smoothing=0.1"],
    "task.label_smothing=0.1": ["do:      task.label_smoothing=0.1"],
    "sede=1": ["do:      seed=1"],
    "seed.x=1": ["no key"],
    "modle=toy_net": ["there is no key or group 'modle'", "do:      model=toy_net"],
    "model=toy_ne": ["there is no model 'toy_ne'", "toy_net", "do:      model=toy_net"],
    "model=toy_other": ["model 'toy_other' belongs to elsewhere, not to toy", "model of toy:",
                        "do:      domain=elsewhere model=toy_other"],
    "domain=toyy": ["there is no domain 'toyy'", f"allowed: {', '.join(sorted([*NAMES, 'elsewhere', 'toy']))}",
                    "do:      domain=toy"],
    "data=toy_point": ["do:      data=toy_points"],
    "scan=crss": ["do:      scan=cross"],
    "experiments=nothing": ["there is no experiments 'nothing'"],
    "xqzw=1": ["--help lists every key"],
    "toy_net": ["not of the form key=value", "given:   toy_net"],
    "--epochs=3": ["there is no option '--epochs=3'", "key=value"],
    "seed=1,2": ["need -m", "do:      python train.py -m seed=1,2"],
    "~model": ["nothing can be deleted"],
    "data=[1": ["cannot be read", "given:   data=[1"],
    "run_dir=/a(b": ["'run_dir=\"/a(b\"'"],
    "data.seed=${oops}": ["do not fit together", "oops"],
    "model=toy_hostile": ["may be built", "os.system", "polymamba.domains.*"],
    "model._target_=os.system": ["may be built"],
}  # fmt: skip
LINES = {
    "a path with a space": (["run_dir=/my", "runs"], ["'run_dir=/my runs'"]),
    "two spaces": (["run_dir=/my", "best", "runs", "seed=1"], ["'run_dir=/my best runs' seed=1"]),
    "spaces around =": (["model", "=", "toy_net"], ["model=toy_net"]),
    "a space behind =": (["seed=", "3"], ["seed=3"]),
    "not UTF-8": (["run_dir=/a\udcff"], ["not UTF-8"]),
    "option without value": (["--allow"], ["--allow needs a value"]),
    "no such folder": (["--config-dir=nowhere"], ["no such folder of configs"]),
    "no run": (["resume=runs/nothing"], ["no such run or checkpoint", "given:   resume=runs/nothing"]),
    "momentum": (["optimizer=sgd", "optimizer.momentum=1"], ["0 to below 1"]),
    "a sweep with a mistake": (["-m", "seed=1,2", "model.hidden=0"], ["model.hidden is out of range"]),
    "sizes that do not fit": (
        ["model.patch_size=3"],
        ["does not divide", "model.patch_size=3", "do:      model.patch_size=2"],
    ),
    "several devices": (["trainer.devices=2"], ["one process each", "torchrun --nproc-per-node=2"]),
    "folder in use": (["run_dir=."], ["in use"]),
}
FAST = {**OUT_OF_RANGE, **WRONG_TYPE, **MISSPELT}


@pytest.fixture
def refused(refused, groups):
    """The same with the toy domain."""
    return lambda *words, **job: refused(*OPTIONS, *words, **job)


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    return messages(FAST, [*OPTIONS, "domain=toy"], tmp_path_factory.mktemp("empty"), path=str(TOY))


@pytest.mark.parametrize("case", FAST)
def test_one_message_before_torch_is_loaded(case, said):
    assert [part for part in FAST[case] if part not in said[case]] == [], said[case]


@pytest.mark.parametrize("case", LINES)
def test_one_message(case, refused, tmp_path):
    words, parts = LINES[case]
    (tmp_path / "something").touch()
    message = refused("domain=toy", *words)
    assert [part for part in parts if part not in message] == [], message


FILES = {
    "a tab": (b"name: x\n\tdepth: 2\n", ["line 2", "indent with spaces"]),
    "a key twice": (b"name: x\nname: y\n", ["duplicate key name, line 2"]),
    "a list": (b"- 1\n", ["holds no keys"]),
    "a number": (b"3\n", ["holds no keys"]),
    "an open bracket": (b"name: [\n", ["cannot be read"]),
    "bytes": (b"\xb2\xff\x00", ["cannot be read"]),
    "nothing": (b"", ["no _target_"]),
    "a target of somebody else's": (b"name: x\n_target_: os.system\n", ["may be built"]),
}


@pytest.mark.parametrize("case", FILES)
def test_a_config_file_that_cannot_be_read(case, refused, tmp_path):
    content, parts = FILES[case]
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "broken.yaml").write_bytes(content)
    message = refused("--config-dir=mine", "domain=toy", "model=broken")
    assert [part for part in parts if part not in message] == [], message
    assert "model.hidden is out of range" in refused("--config-dir=mine", "domain=toy", "model.hidden=0")
    assert "belongs to elsewhere" in refused("--config-dir=mine", "domain=toy", "model=toy_other")


def make_run(folder):
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").touch()


def test_a_folder_of_runs_lists_them(refused, tmp_path):
    for name in ("one", "two"):
        make_run(tmp_path / "runs" / "toy" / "toy_net" / name)
    for where in ("runs", "runs/toy", "runs/toy/toy_net"):
        message = refused(f"ckpt={where}", job="evaluate")
        assert "runs/toy/toy_net/one" in message
        assert "do:      ckpt=runs/toy/toy_net/" in message
        assert "several runs" in refused(f"resume={where}")


@pytest.mark.parametrize("job", ["evaluate", "predict"])
def test_a_folder_with_checkpoints_but_no_configuration_is_no_run(job, refused, tmp_path):
    (tmp_path / "engine" / "checkpoints").mkdir(parents=True)
    assert "allowed: a run's folder; there is none here yet" in refused("ckpt=nowhere", job=job)
    assert "do:" not in refused("ckpt=engin", job=job)
    make_run(tmp_path / "first")
    message = refused("ckpt=frist", job=job)
    assert "allowed: first\n" in message
    assert "do:      ckpt=first" in message


def test_a_name_alone_is_an_option_of_a_group(refused):
    assert "do:      optimizer=sgd" in refused("sgd")


def test_eval_without_checkpoint(refused):
    assert "ckpt=<run folder or checkpoint>" in refused(job="evaluate")


def test_train_py_exits_with_2(tmp_path):
    words = [sys.executable, str(ROOT / "train.py"), *OPTIONS, "domain=toy", "modle=toy_net"]
    result = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    assert "do:      model=toy_net" in result.stderr


@pytest.mark.parametrize("job", ["train", "evaluate", "predict"])
def test_output_that_nobody_reads_and_terminals_without_letters(job, tmp_path):
    program = f"import sys; from polymamba.engine.command_line.main import main; sys.exit(main(job={job!r}))"
    command = [sys.executable, "-c", program, "--help"]
    plain = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C", "COLUMNS": "1"}
    found = subprocess.run(command, cwd=tmp_path, env=plain, capture_output=True, text=True, timeout=120)
    assert (found.returncode, found.stderr) == (0, "")
    assert "--config-dir=<folder>" in found.stdout
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=120) in (0, 141)
