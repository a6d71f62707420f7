"""A signal at any moment: always its exit code, always a checkpoint, and going on from it gives the same bits."""

import csv
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback

from polymamba.engine.checkpoints import folder as files
from polymamba.engine.training.stop import Stopped

TOLD = ("optimizer_states", "lr_schedulers", "global_step", "trained")


class At(Callback):
    """Sends this process a signal in a hook of Lightning's, the n-th time that it is called."""

    def __init__(self, hook, times=1, number=signal.SIGTERM):
        self.left = times

        def hear(*_, **__):
            self.left -= 1
            if self.left == 0:
                signal.raise_signal(number)

        setattr(self, hook, hear)


def same(first, second):
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second


def outcome(folder):
    """What two runs that are the same have in common: weights, what the optimizer knows, best weights, metrics."""
    last, best = ((Path(folder) / "checkpoints" / name).resolve() for name in ("last", "best"))
    state = files.read_state(last)
    with open(Path(folder) / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    varying = ("second", "memory")
    rows = [{k: v for k, v in row.items() if not any(word in k for word in varying)} for row in rows]
    return [files.read_weights(last), {key: state[key] for key in TOLD}, files.read_weights(best), best.name, rows]


# 20 samples in batches of 4: an epoch ends after batches 5, 10 and 15; gradients of 4 batches make steps 1, 2, 3, 4, 5, 6.
MOMENTS = {
    "setup": ("setup", 1, ()),
    "train start": ("on_train_start", 1, ()),
    "accumulation": ("on_train_batch_start", 7, ("trainer.accumulate=4",)),
    "accumulation, last batch of an epoch": ("on_train_batch_start", 5, ("trainer.accumulate=4",)),
    "accumulation, averaged weights": ("on_train_batch_start", 8, ("trainer.accumulate=4", "trainer.ema=0.9")),
    "validation amid accumulation": ("on_validation_batch_start", 2, ("trainer.accumulate=4", "trainer.val_every_steps=3")),
    "first validation batch": ("on_validation_batch_start", 1, ()),
    "last validation batch": ("on_validation_batch_end", 5, ()),
    "in the last validation": ("on_validation_batch_start", 12, ()),
    "in the last validation, accumulated": ("on_validation_batch_start", 12, ("trainer.accumulate=4",)),
    "validation end": ("on_validation_end", 1, ()),
    "last validation end": ("on_validation_end", 3, ()),
    "epoch end": ("on_train_epoch_end", 1, ()),
    "next epoch": ("on_train_epoch_start", 2, ()),
    "while saving": ("on_save_checkpoint", 2, ()),
    "while saving between validations": ("on_save_checkpoint", 2, ("trainer.checkpoint_every=2",)),
    "train end": ("on_train_end", 1, ()),
    "test start": ("on_test_start", 1, ()),
    "in the test": ("on_test_batch_start", 2, ()),
    "test end": ("on_test_end", 1, ()),
}  # fmt: skip


@pytest.fixture(scope="module")
def wholes():
    """Outcomes of runs that were never stopped, by their arguments."""
    return {}


FAST = (
    "setup", "accumulation, averaged weights", "validation amid accumulation", "first validation batch", "last validation batch",
    "in the last validation", "in the last validation, accumulated", "validation end", "last validation end", "while saving",
    "in the test", "test end",
)  # fmt: skip


@pytest.mark.parametrize(
    "moment", [pytest.param(each, marks=() if each in FAST else pytest.mark.slow) for each in MOMENTS]
)
def test_stopped_at_any_moment_and_resumed_is_as_if_never_stopped(moment, toy, wholes):
    hook, times, arguments = MOMENTS[moment]
    if arguments not in wholes:
        wholes[arguments] = outcome(toy("run_dir=whole", *arguments).folder)
    with pytest.raises(Stopped) as stopped:
        toy("run_dir=parts", *arguments, callbacks=[At(hook, times)])
    assert stopped.value.exit_code == 143
    assert not list(Path("parts/checkpoints").glob(f"{files.UNFINISHED}*"))
    toy(resume=files.find("parts")[0])
    assert same(outcome("parts"), wholes[arguments])


def test_a_second_signal_while_saving_leaves_the_checkpoint_before_whole(toy, monkeypatch):
    sha256, calls = files.sha256, []

    def signals(path):
        calls.append(path)
        if len(calls) in (5, 6):
            signal.raise_signal(signal.SIGINT)
        return sha256(path)

    with monkeypatch.context() as patched:
        patched.setattr("polymamba.engine.training.stop.ECHO_SECONDS", -1.0)
        patched.setattr(files, "sha256", signals)
        with pytest.raises(Stopped) as stopped:
            toy("run_dir=run", "trainer.checkpoint_every=2")
    assert stopped.value.exit_code == 130
    assert str(stopped.value) == "Ctrl-C twice: stopped at once; the last checkpoint is of step 4."
    assert [path.name for path in files.checkpoints(Path("run/checkpoints"))] == ["step-00000004", "step-00000002"]
    assert files.find("run") == (Path("run/checkpoints/step-00000004").resolve(), None)
    assert not list(Path("run/checkpoints").glob(f"{files.UNFINISHED}*"))


def test_before_the_first_step_there_is_nothing_to_save(command, monkeypatch):
    build = "polymamba.engine.training.run.build_parts"
    monkeypatch.setattr(build, lambda *_, **__: signal.raise_signal(signal.SIGTERM))
    code, _, message = command("domain=toy", "run_dir=run")
    assert code == 143
    assert "SIGTERM: stopped before the first step was done; there was nothing to save." in message
    assert "start it again" in message
    assert message.rstrip().endswith("domain=toy run_dir=run")
    assert not Path("run").exists()


def test_the_printed_command_goes_on_with_the_settings_that_the_run_was_resumed_with(command, monkeypatch):
    arguments = ("domain=toy", "trainer.progress=none", "data.samples=20", "trainer.epochs=3", "run_dir=run")
    assert command(*arguments)[0] == 0
    from toy.task import Classify

    step, calls = Classify.step, []

    def signals(task, batch, stage):
        calls.append(stage)
        if len(calls) == 7:
            signal.raise_signal(signal.SIGTERM)
        return step(task, batch, stage)

    monkeypatch.setattr(Classify, "step", signals)
    code, _, message = command("resume=run", "trainer.epochs=6")
    assert code == 143
    assert message.rstrip().endswith("resume=run")
    code, printed, message = command("resume=run")
    assert (code, message) == (0, "")
    assert "30 steps: 6 epochs" in printed
    assert "epochs: 6" in Path("run/config.yaml").read_text()


def test_a_sweep_that_is_stopped_says_what_is_left(command, monkeypatch):
    from toy.task import Classify

    step, calls = Classify.step, []

    def signals(task, batch, stage):
        calls.append(stage)
        if calls.count("test") == 5 and stage == "train":
            signal.raise_signal(signal.SIGINT)
        return step(task, batch, stage)

    monkeypatch.setattr(Classify, "step", signals)
    arguments = ("domain=toy", "trainer.progress=none", "data.samples=20", "trainer.epochs=1", "run_dir=runs")
    code, printed, message = command("-m", *arguments, "optimizer.lr=0.1,0.2,0.3")
    assert code == 130
    assert "test/accuracy" in printed.splitlines()[-3]
    assert "optimizer.lr=0.1" in printed.splitlines()[-2]
    left = message.partition("left to do\n")[2].strip().splitlines()
    assert left[0].endswith("resume=runs/2")
    assert left[1].endswith("run_dir=runs/3 optimizer.lr=0.3")
    assert len(left) == 2
    monkeypatch.setattr(Classify, "step", step)
    assert command(*left[0].split()[-1:])[0] == 0
    assert command(*left[1].split()[-6:])[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("accumulate", [1, 4])
def test_at_random_moments(number, accumulate, groups, tmp_path, monkeypatch):
    from forked import Forked

    from .conftest import OPTIONS

    monkeypatch.chdir(tmp_path)

    def start(name, *arguments):
        return Forked(*OPTIONS, *arguments, output=tmp_path / f"{name}.txt")

    usual = (
        "domain=toy",
        "trainer.progress=none",
        "trainer.epochs=3",
        "trainer.ema=0.9",
        f"trainer.accumulate={accumulate}",
    )
    began = time.monotonic()
    assert start("whole", *usual, "run_dir=whole").wait() == 0
    lasts, whole, place = time.monotonic() - began, outcome("whole"), random.Random(accumulate)
    for moment in range(8):
        run = start(f"run{moment}", *usual, "run_dir=run")
        wanted = place.choice(("any", "train", "val", "save", "test"))
        until = time.monotonic() + place.random() * lasts * 0.8
        while time.monotonic() < until or (wanted not in ("any", run.phase.replace("accumulate", "train"))):
            time.sleep(0.0005)
            if run.phase == "end":
                break
        phase = run.phase
        run.send(number)
        code, said = run.wait(), run.output.read_text()
        assert "Traceback" not in said
        # Before it listens, and once all its work is done, a signal meets a process like any other.
        outside = phase == "end" or not said
        assert code == 128 + number or (outside and code in (0, -number)), (phase, code, said)
        if not Path("run").exists():
            assert not said or "stopped" in said
            continue
        assert start(f"resumed{moment}", "resume=run").wait() == 0
        assert same(outcome("run"), whole), phase
        shutil.rmtree("run")
