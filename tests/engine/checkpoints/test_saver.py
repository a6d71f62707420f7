"""Runs that end early without a signal: weights worth nothing, a full disk, time that is over."""

import csv
import errno
import os
import shutil
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback

from polymamba.engine.callbacks import NonFinite, WeightAverage
from polymamba.engine.checkpoints import folder as files
from polymamba.engine.checkpoints.saver import validation_follows
from polymamba.engine.training.stop import Failed

from ..test_signals import outcome, same


class After(Callback):
    """Does something after an optimizer step, before anything is saved."""

    def __init__(self, step, do):
        self.step, self.do = step, do

    def on_train_batch_end(self, trainer, task, *_):
        if trainer.global_step == self.step:
            self.do(trainer, task)


def spoil(value):
    def do(trainer, task):
        with torch.no_grad():
            next(task.model.parameters())[0, 0] = value

    return do


def spoil_average(trainer, task):
    average = next(each for each in trainer.callbacks if isinstance(each, WeightAverage)).averaged
    with torch.no_grad():
        next(average.parameters())[0, 0] = float("inf")


# 20 samples in batches of 4: 15 steps, validations after 5, 10 and 15.
@pytest.mark.parametrize(("step", "kept"), [(1, None), (15, "step-00000010")])
@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_weights_that_are_not_finite_are_never_saved(toy, step, kept, value):
    more = ("trainer.steps=1",) if step == 1 else ()
    with pytest.raises(NonFinite, match=f"after step {step}, before a checkpoint was written") as stopped:
        toy("run_dir=run", *more, callbacks=[After(step, spoil(value))])
    assert stopped.value.quantity == "weights"
    assert stopped.value.parameters == ["model.layers.0.weight"]
    newest = files.checkpoints(Path("run/checkpoints"))
    assert (newest[0].name if newest else None) == kept
    if kept:
        assert files.find("run")[0].name == kept
        assert files.find("run", ("best",))[0].name in ("step-00000005", kept)


def test_an_average_that_is_not_finite_is_never_saved(toy):
    with pytest.raises(NonFinite, match="weights are not finite"):
        toy("run_dir=run", "trainer.ema=0.9", callbacks=[After(10, spoil_average)])
    assert files.find("run")[0].name == "step-00000005"


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_validation_without_a_finite_loss_ends_the_run_and_last_is_the_checkpoint_before(toy, loss):
    class Judge(Callback):
        def on_validation_start(self, trainer, task):
            if trainer.global_step == 10:
                task.step = lambda batch, stage: (torch.tensor(loss), {"accuracy": torch.tensor(1.0)})

    with pytest.raises(NonFinite, match=f"after step 10: the validation loss is {loss}"):
        toy("run_dir=run", callbacks=[Judge()])
    assert files.find("run")[0].name == "step-00000005"
    assert files.find("run", ("best",))[0].name == "step-00000005"


def test_a_huge_learning_rate_is_no_success(command):
    code, printed, message = command("domain=toy", "optimizer.lr=1e39", "trainer.steps=1", "run_dir=run")
    assert code == 1
    assert "weights are not finite" in message
    assert "best so far" not in printed
    assert not any(Path("run/checkpoints").glob("*"))


FAULTS = {"disk full": errno.ENOSPC, "read-only": errno.EROFS, "no permission": errno.EACCES}


@pytest.mark.parametrize("what", FAULTS)
def test_a_run_folder_that_cannot_be_written(what, command, monkeypatch):
    rename, count = os.rename, []

    def refuse(source, target):
        count.append(target)
        if len(count) == 3:
            raise OSError(FAULTS[what], os.strerror(FAULTS[what]), str(source))
        return rename(source, target)

    monkeypatch.setattr(files.os, "rename", refuse)
    arguments = ("domain=toy", "trainer.progress=none", "data.samples=20", "trainer.epochs=3", "run_dir=run")
    code, _, message = command(*arguments)
    monkeypatch.setattr(files.os, "rename", rename)
    assert code == 1
    assert message.strip().splitlines() == [
        f"Training stopped: its run folder run cannot be written: {os.strerror(FAULTS[what])}.",
        "  kept:  the checkpoint of step 10 is whole",
        "  do:    make room or make it writable, then resume=run",
    ]
    assert sorted(path.name for path in Path("run/checkpoints").iterdir()) == [
        "best", "last", "step-00000005", "step-00000010",
    ]  # fmt: skip
    assert command("resume=run")[0] == 0


def test_a_run_folder_that_is_deleted(toy):
    with pytest.raises(Failed, match="its run folder run is gone"):
        toy("run_dir=run", callbacks=[After(7, lambda *_: shutil.rmtree("run"))])
    assert not Path("run").exists()


class Clock:
    """Time that passes a second an optimizer step."""

    def __init__(self):
        self.steps = 0

    def monotonic(self):
        self.steps += 1
        return float(self.steps)


@pytest.mark.parametrize(
    ("steps", "arguments"),
    [(15, ()), (9, ("trainer.accumulate=2",)), pytest.param(15, ("trainer.val_every=2",), marks=pytest.mark.slow)],
)
def test_time_ends_a_run_says_so_and_is_given_anew(toy, monkeypatch, steps, arguments):
    whole = outcome(toy("run_dir=whole", *arguments).folder)
    said = []
    monkeypatch.setattr("polymamba.engine.checkpoints.saver.time", Clock())
    result = toy("run_dir=parts", "trainer.time_limit=4s", *arguments, say=said.append)
    assert result.ended == f"trainer.time_limit=4s ended the run at step 4 of {steps}"
    assert f"\n{result.ended}\n" in said
    assert files.find("parts")[0].name == "step-00000004"
    parts = 1
    while result.ended:
        parts += 1
        monkeypatch.setattr("polymamba.engine.checkpoints.saver.time", Clock())
        result = toy(resume=files.find("parts")[0])
    assert parts == -(-steps // 4)
    # The rows of validations that were made when the time was over come on top.
    *found, rows = outcome("parts")
    assert same(found[:2], whole[:2])
    assert [row for row in rows if row in whole[-1]] == whole[-1]
    with open("parts/metrics.csv", newline="") as file:
        assert "test" in {row["stage"] for row in csv.DictReader(file)}


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("trainer.accumulate=2",),
        ("trainer.val_every=2",),
        ("trainer.val_every_steps=3",),
        ("trainer.limit_train=3",),
        ("trainer.limit_val=1", "trainer.steps=7"),
        ("trainer.overfit=2",),
    ],
)
def test_whether_a_validation_follows_is_lightnings_own_answer(arguments, toy):
    class Compare(Callback):
        said = ()

        def on_train_batch_end(self, trainer, *_):
            loop = trainer.fit_loop
            for stops in (False, True):
                trainer.should_stop = stops
                expected = loop.epoch_loop._should_check_val_fx(loop._data_fetcher)
                assert validation_follows(trainer) == expected
            trainer.should_stop = False
            self.said = (*self.said, validation_follows(trainer))

    compare = Compare()
    toy("run_dir=run", *arguments, callbacks=[compare])
    assert set(compare.said) == {False, True}
