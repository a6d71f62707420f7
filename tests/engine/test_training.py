"""Whole runs of a tiny domain: repeatable, resumable bit for bit, stopped in good order."""

import csv
import json
import signal
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback

from polymamba.engine.callbacks import NonFinite
from polymamba.engine.checkpoints import folder as files
from polymamba.engine.training.stop import Stopped


class SignalAt(Callback):
    """Sends this process a signal after an optimizer step, or during the validation that follows it."""

    def __init__(self, step, during="training", number=signal.SIGTERM):
        self.step, self.during, self.number = step, during, number

    def on_train_batch_end(self, trainer, *_):
        if self.during == "training" and trainer.global_step == self.step:
            signal.raise_signal(self.number)

    def on_validation_batch_start(self, trainer, *_):
        if self.during == "validation" and trainer.global_step == self.step:
            signal.raise_signal(self.number)


def last(folder):
    path = (folder / "checkpoints" / "last").resolve()
    return files.read_weights(path), files.read_state(path)


def same(first, second):
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second


def losses(run):
    """Step, epoch and loss of every training row."""
    with open(Path(run) / "metrics.csv", newline="") as file:
        return [(r["step"], r["epoch"], r["train/loss"]) for r in csv.DictReader(file) if r["stage"] == "train"]


def test_one_seed_gives_the_same_weights(toy):
    first, second, other = toy("run_dir=a"), toy("run_dir=b"), toy("run_dir=c", "seed=1")
    assert first.metrics == second.metrics
    assert same(last(first.folder)[0], last(second.folder)[0])
    assert not same(last(first.folder)[0], last(other.folder)[0])


# 20 samples in batches of 4: an epoch ends at steps 5, 10 and 15.
@pytest.mark.parametrize(
    ("step", "more"),
    [
        *((step, ()) for step in (1, 5, 7, 10, 14)),
        *((step, ("trainer.ema=0.9",)) for step in (5, 7)),
        *((step, ("trainer.val_every=2",)) for step in (5, 7)),
    ],
)
def test_stopped_and_resumed_is_as_if_never_stopped(toy, step, more):
    whole = toy("run_dir=whole", *more)
    with pytest.raises(Stopped) as stopped:
        toy("run_dir=parts", *more, callbacks=[SignalAt(step)])
    assert stopped.value.exit_code == 143
    path, remark = files.find("parts")
    assert (path.name, remark) == (f"step-{step:08d}", None)
    resumed = toy(resume=path)
    weights, state = last(resumed.folder)
    expected_weights, expected_state = last(whole.folder)
    assert same(weights, expected_weights)
    for part in ("optimizer_states", "lr_schedulers", "global_step", "trained"):
        assert same(state[part], expected_state[part])
    assert resumed.metrics == whole.metrics
    assert files.find("parts", ("best",))[0].name == files.find("whole", ("best",))[0].name


# Within an epoch, at its end, and twice.
@pytest.mark.parametrize("ends", [(3,), (5,), (1, 7), (10, 11)])
def test_a_finished_run_made_longer_goes_on_within_its_epoch(toy, command, ends):
    usual = ["optimizer.schedule=constant", "optimizer.warmup=0", "trainer.log_every=1"]
    whole = toy("run_dir=whole", "trainer.steps=12", *usual)
    toy("run_dir=parts", f"trainer.steps={ends[0]}", *usual)
    for end in (*ends[1:], 12):
        assert command("resume=parts", f"trainer.steps={end}")[0] == 0
    for run, other in (("whole", "parts"), ("parts", "whole")):
        assert (trained := losses(run)) == losses(other)
        assert len(trained) == 12
    assert same(last(whole.folder)[0], last(Path("parts"))[0])


@pytest.mark.parametrize("step", [5, 10])
def test_stopped_in_validation_goes_on_with_it(toy, step):
    whole = toy("run_dir=whole")
    with pytest.raises(Stopped):
        toy("run_dir=parts", callbacks=[SignalAt(step, during="validation", number=signal.SIGINT)])
    resumed = toy(resume=files.find("parts")[0])
    assert same(last(resumed.folder)[0], last(whole.folder)[0])
    assert files.find("parts", ("best",))[0].name == files.find("whole", ("best",))[0].name
    assert resumed.metrics == whole.metrics


@pytest.mark.parametrize(("values", "step"), [((1.0, 1.0, 1.0), 15), ((0.5, 0.7, 0.6), 10), ((0.7, 0.7, 0.6), 10)])
def test_of_equal_validations_the_newest_weights_are_best(toy, values, step):
    class Judge(Callback):
        def on_validation_start(self, trainer, pl_module):
            found = {"accuracy": torch.tensor(values[trainer.current_epoch])}
            pl_module.step = lambda batch, stage: (torch.tensor(0.0), found)

        def on_validation_end(self, trainer, pl_module):
            del pl_module.step

    toy("run_dir=run", callbacks=[Judge()])
    assert files.find("run", ("best",))[0].name == f"step-{step:08d}"


@pytest.mark.parametrize("more", [("trainer.val_every=2",), ("trainer.val_every_steps=4",), ("trainer.steps=13",)])
def test_the_last_weights_are_validated(toy, more):
    result = toy("run_dir=run", "trainer.checkpoint_every=1", *more)
    with open("run/metrics.csv") as file:
        steps = [int(row["step"]) for row in csv.DictReader(file) if row["stage"] == "val"]
    assert steps == sorted(set(steps))
    assert steps[-1] == int(files.find(result.folder, ("last",))[0].name.removeprefix("step-"))


def test_accumulated_gradients_resume_at_step_boundaries(toy):
    arguments = ("data.samples=24", "trainer.accumulate=2")
    whole = toy("run_dir=whole", *arguments)
    with pytest.raises(Stopped):
        toy("run_dir=parts", *arguments, callbacks=[SignalAt(4)])
    assert same(last(toy(resume=files.find("parts")[0]).folder)[0], last(whole.folder)[0])


def test_a_loss_that_is_not_finite_stops_before_the_update(toy):
    with pytest.raises(NonFinite):
        toy("run_dir=broken", "model.explode=true")
    assert not list(files.checkpoints(Path("broken/checkpoints")))


def test_what_a_run_folder_holds(toy, tmp_path):
    said = []
    result = toy("run_dir=run", "trainer.checkpoint_every=2", say=said.append)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"config.yaml", "overrides.txt", "environment.json", "metrics.csv", "checkpoints"} <= names
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["backend"] == "cpu"
    assert environment["versions"]["torch"]
    assert environment["seed"] == 0
    weights = files.read_weights(tmp_path / "run" / "checkpoints" / "best")
    assert set(weights) == set(result.task.model.state_dict())
    lines = [line.split()[0] for line in said[1].strip().splitlines()]
    assert lines == [
        "domain", "data", "model", "scan", "compute", "training", "optimizer", "precision", "backend", "device", "seed", "folder",
    ]  # fmt: skip
    assert "15 steps: 3 epochs of 5 batches of 4" in said[1]


def test_steps_end_a_run_early(toy):
    result = toy("run_dir=run", "trainer.steps=7")
    assert last(result.folder)[1]["global_step"] == 7


def test_debug_presets(toy):
    assert last(toy("run_dir=fast", "debug=fast").folder)[1]["global_step"] == 1
    learnt = toy("run_dir=overfit", "debug=overfit", "model.dropout=0.0", "trainer.epochs=100", "optimizer.lr=0.05")
    assert last(learnt.folder)[1]["global_step"] == 100
    with open("overfit/metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["val/loss"]) for row in rows if row["stage"] == "val"][-1] < 0.05
