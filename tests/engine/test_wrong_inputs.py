"""What people type wrongly, by kind: the exit code, what the message must hold, and that nothing is left behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from polymamba.engine.command_line.main import main

ROOT = Path(__file__).resolve().parents[2]
HUGE = "9" * 400


def each(cases, words):
    return dict.fromkeys(cases, words)


# group.key=value: words of the message. Nothing of these needs torch.
OUT_OF_RANGE = {
    **each(["model.patch_size=0", "model.stride=0", "model.patch_size=-1"], ["1 to 65,536"]),
    **each(["model.depth=0", "model.depth=-1", "model.depth=1001", "model.depth=9223372036854775808"], ["1 to 1,000"]),
    **each(["model.embed_dim=0", "model.d_state=-4", "model.d_state=0", "data.batch_size=0", "data.batch_size=-8"],
                    ["at least 1"]),
    **each(["model.drop_path_rate=2", "model.drop_path_rate=1", "model.drop_path_rate=-0.1"], ["0 to below 1"]),
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
                     "optimizer.weight_decay=inf", "task.mixup=nan", "optimizer.warmup=nan"], ["out of range"]),
    **each(["optimizer.eps=0", "trainer.gradient_clip=0"], ["above 0"]),
    **each(["trainer.ema=1", "trainer.ema=1.5", "task.label_smoothing=1"], ["0 to below 1"]),
    **each(["optimizer.final_lr=2", "task.mix_probability=1.1", "task.cutmix_share=-1", "data.erasing=2"], ["0 to 1"]),
    **each(["data.val_fraction=0", "data.val_fraction=1", "data.test_fraction=-1"], ["above 0, below 1"]),
    **each(["data.image_size=0", "data.image_size=[8,0]", "data.image_size=100000"], ["1 to 65,536"]),
    **each(["data.split_seed=-1", "task.worst=-1"], ["at least 0"]),
    "data.limit=0": ["at least 1"],
}  # fmt: skip
WRONG_TYPE = {
    **each(["trainer.epochs=abc", "trainer.epochs=[1]", "trainer.epochs={}", "trainer.epochs=true", "trainer.epochs=null",
                     "trainer.epochs=1.5", "trainer.epochs=", "trainer.threads=two", "trainer.epochs='1'"],
                    ["wrong type", "a whole number"]),
    **each(["model.d_state=null", "model.d_state=16.0", "model.depth=4.0", "model.embed_dim=true", "model.d_state=[16]",
                     "data.batch_size=null", "data.batch_size=64.0", "seed=null", "seed=1.0", "seed=zero", "seed={}"],
                    ["wrong type", "a whole number"]),
    **each(["optimizer.lr=fast", "optimizer.lr=null", "optimizer.lr=[0.1]", "optimizer.lr=true", "optimizer.lr=",
                     "model.drop_path_rate=null"], ["wrong type", "a number"]),
    **each(["trainer.pictures=1", "trainer.deterministic=perhaps", "model.divide=2"], ["wrong type", "true or false"]),
    **each(["optimizer.betas=0.9", "optimizer.betas=[a,b]", "optimizer.betas={}"], ["optimizer.betas"]),
    **each(["optimizer.betas=[]", "optimizer.betas=[0.9]", "optimizer.betas=[0.9,0.9,0.9]"],
           ["wrong type", "a list of 2"]),
    **each(["model.size=huge", "model.size=2.8b"], ["no option", "micro, tiny"]),
    "model.size=": ["no option", "micro, tiny"],
    "run_dir=": ["is empty", "do:      run_dir=null"],
    "model.class_token=centre": ["no option", "middle"],
    **each(["model.parameters=seperate", "model.conv=pathh", "model.backend=cuda"], ["no option"]),
    **each(["trainer.accelerator=tpu", "trainer.precision=64", "trainer.progress=fancy", "optimizer.schedule=linear",
                     "data.augmentation=lite"], ["no option"]),
    **each(["trainer.time_limit=0s", "trainer.time_limit=soon", "trainer.time_limit=1x", "trainer.time_limit=00:00:00",
                     "trainer.time_limit=99999999999999999999d"], ["not a time", "1h30m"]),
    **each(["trainer=[1]", "model=[1]", "optimizer={lr:1}"], ["there is no"]),
    "scan=null": ["needs a scan", "scan=bidirectional"],
    **each(["model=null", "data=null", "task=null", "optimizer=null", "domain=null"], ["a run needs a"]),
}  # fmt: skip
MISSPELT = {
    "lr=0.1": ["do:      optimizer.lr=0.1"],
    "optimiser.lr=0.1": ["do:      optimizer.lr=0.1"],
    "optimizer.learning=0.1": ["no key 'optimizer.learning'"],
    "epohcs=3": ["do:      trainer.epochs=3"],
    "epochs=3": ["do:      trainer.epochs=3"],
    "batch_size=3": ["do:      data.batch_size=3"],
    "batchsize=3": ["do:      data.batch_size=3"],
    "patch_size=2": ["do:      model.patch_size=2"],
    "label_smoothing=0.1": ["do:      task.label_smoothing=0.1"],
    "weight_decay=0.1": ["do:      optimizer.weight_decay=0.1"],
    "threads=1": ["do:      trainer.threads=1"],
    "train.epochs=1": ["do:      trainer.epochs=1"],
    "modle.d_state=4": ["do:      model.d_state=4"],
    "model.d_stat=4": ["do:      model.d_state=4"],
    "data.batchsize=4": ["do:      data.batch_size=4"],
    "sede=1": ["do:      seed=1"],
    "modle=vim": ["do:      model=vim"],
    "data=cifar": ["do:      data=cifar10"],
    "scan=crss": ["do:      scan=cross"],
    "xqzw=1": ["--help lists every key"],
    "vim": ["do:      model=vim"],
    "--epochs=3": ["no option '--epochs=3'"],
    "seed=1,2": ["need -m"],
    "~model": ["nothing can be deleted"],
    "data.root=/a(b": ["train.py 'data.root=\"/a(b\"'"],
    "data.seed=${oops}": ["do not fit together"],
    "seed.x=1": ["no key"],
    "model._target_=os.system": ["may be built"],
}
LINES = {
    "a path with a space": (["data=image_folder", "data.root=/my", "photos"],
                            ["train.py data=image_folder 'data.root=/my photos'"]),
    "two spaces": (["data.root=/my", "best", "photos", "seed=1"], ["train.py 'data.root=/my best photos' seed=1"]),
    "spaces around =": (["model", "=", "vim"], ["train.py model=vim"]),
    "a space behind =": (["seed=", "3"], ["train.py seed=3"]),
    "not UTF-8": (["data.root=/a\udcff"], ["not UTF-8"]),
    "option without value": (["--allow"], ["--allow needs a value"]),
    "no such folder": (["--config-dir=nowhere"], ["no such folder of configs"]),
    "model of another domain": (["domain=nlp", "model=vim"], ["belongs to vision", "mamba_lm"]),
    "no run": (["resume=runs/nothing"], ["no such run or checkpoint"]),
    "text length": (["domain=nlp", "data.length=1"], ["data.length is out of range", "at least 2"]),
    "text layers": (["domain=nlp", "model.n_layer=0"], ["model.n_layer is out of range"]),
    "text width": (["domain=nlp", "model.d_model=-1"], ["model.d_model is out of range"]),
    "experts": (["domain=nlp", "model=moe_mamba", "model.experts=-1"], ["model.experts is out of range"]),
    "attention": (["domain=nlp", "model=hybrid_lm", "model.attention_every=-1"], ["model.attention_every is out of range"]),
    "synthetic": (["domain=nlp", "data=mqar", "data.pairs=0"], ["data.pairs is out of range"]),
    "empty list": (["domain=nlp", "data=induction_heads", "data.test_lengths=[]"], ["data.test_lengths", "a list of"]),
    "list of words": (["domain=nlp", "data=induction_heads", "data.test_lengths=[a]"], ["data.test_lengths"]),
    "momentum": (["optimizer=sgd", "optimizer.momentum=1"], ["0 to below 1"]),
    "a sweep with a mistake": (["-m", "seed=1,2", "model.depth=0"], ["model.depth is out of range"]),
}  # fmt: skip
FAST = {**OUT_OF_RANGE, **WRONG_TYPE, **MISSPELT}
COMMANDS = {case: ([case], words) for case, words in FAST.items()} | LINES


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """Runs a command line that must end with code 2 and one message, and leave nothing behind; returns the message."""
    monkeypatch.chdir(tmp_path)

    def run(*words, job="train"):
        before = sorted(os.listdir(tmp_path))
        assert main(list(words), job) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert "Traceback" not in printed.err
        assert sorted(os.listdir(tmp_path)) == before
        return printed.err

    return run


@pytest.mark.parametrize("case", COMMANDS)
def test_one_message(case, refused):
    words, parts = COMMANDS[case]
    message = refused(*words)
    assert [part for part in parts if part not in message] == [], message


FILES = {
    "a tab": (b"name: x\n\tdepth: 2\n", ["line 2", "indent with spaces"]),
    "a key twice": (b"name: x\nname: y\n", ["duplicate key name, line 2"]),
    "a list": (b"- 1\n", ["holds no keys"]),
    "a number": (b"3\n", ["cannot be read"]),
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
    message = refused("--config-dir=mine", "model=broken")
    assert [part for part in parts if part not in message] == [], message
    assert "model.depth is out of range" in refused("--config-dir=mine", "model.depth=0")
    assert "belongs to vision" in refused("--config-dir=mine", "domain=nlp", "model=vim")


def test_a_folder_of_runs_lists_them(refused, tmp_path):
    for name in ("one", "two"):
        (tmp_path / "runs" / "vision" / "vim" / name / "checkpoints").mkdir(parents=True)
    for where in ("runs", "runs/vision", "runs/vision/vim"):
        message = refused(f"ckpt={where}", job="evaluate")
        assert "runs/vision/vim/one" in message
        assert "do:      ckpt=runs/vision/vim/" in message
        assert "several runs" in refused(f"resume={where}")


def test_typing_mistakes_do_not_wait_for_torch(tmp_path):
    program = (
        "import sys; from polymamba.engine.command_line.main import main\n"
        "for word in sys.argv[1:]: assert main([word]) == 2, word\n"
        "print('torch' in sys.modules)"
    )
    known = [sys.executable, "-c", program, *FAST]
    found = subprocess.run(known, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert found.stdout.split() == ["False"], found.stderr[-2000:]


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
