"""metrics.csv of a run: numbers that are true."""

import csv

import pytest
from lightning.pytorch import Callback

from polymamba.engine.callbacks import FiniteGuard, Meter, MetricsCSV
from polymamba.engine.callbacks.table import Table


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_training_rows_are_means_over_the_batches_since_the_last(
    make_task, make_loader, make_trainer, tmp_path, accumulate
):
    losses = []
    task, meter = make_task(), Meter()
    step = task.step

    def remember(batch, stage):
        loss, metrics = step(batch, stage)
        if stage == "train":
            losses.append(float(loss.detach()))
        return loss, metrics

    task.step = remember
    writer = MetricsCSV(tmp_path / "metrics.csv", meter, every=3)
    trainer = make_trainer([meter, FiniteGuard(), writer], accumulate_grad_batches=accumulate, max_epochs=2)
    trainer.fit(task, make_loader(64), make_loader(16, shuffle=False))
    trainer.test(task, make_loader(16, shuffle=False), verbose=False)
    rows = read(tmp_path / "metrics.csv")
    training = [r for r in rows if r["stage"] == "train"]
    steps = 16 // accumulate
    ends = [*range(3, steps, 3), steps]
    assert [int(r["step"]) for r in training] == ends
    start = 0
    for end, found in zip(ends, training, strict=True):
        expected = losses[start * accumulate : end * accumulate]
        assert float(found["train/loss"]) == pytest.approx(sum(expected) / len(expected), rel=1e-5)
        assert 0 <= float(found["train/accuracy"]) <= 1
        assert float(found["gradient_norm"]) > 0
        start = end
    assert [int(r["step"]) for r in rows if r["stage"] == "val"] == [steps // 2, steps]
    assert [r["epoch"] for r in rows if r["stage"] == "val"] == ["0", "1"]
    last = rows[-1]
    assert (last["stage"], last["step"]) == ("test", str(steps))
    assert float(last["test/loss"]) == pytest.approx(float(trainer.callback_metrics["test/loss"]), rel=1e-5)
    assert last["val/loss"] == last["train/loss"] == ""


def test_a_new_run_in_the_same_folder_starts_a_new_file(make_task, make_loader, make_trainer, tmp_path):
    path = tmp_path / "metrics.csv"
    Table(path).add({"step": 900, "epoch": 3, "stage": "train", "seconds": 1.0, "train/other": 1.0})
    meter = Meter()
    make_trainer([meter, MetricsCSV(path, meter, every=5)]).fit(make_task(), make_loader())
    rows = read(path)
    assert [r["step"] for r in rows] == ["5", "10"]
    assert "train/other" not in rows[0]


def test_seconds_go_on_in_a_resumed_run(make_task, make_loader, make_trainer, tmp_path, clock):
    class Passing(Callback):
        def on_before_backward(self, *arguments):
            clock.now += 2.0

    def run(epochs, checkpoint=None):
        meter = Meter(clock=clock)
        callbacks = [meter, MetricsCSV(tmp_path / "metrics.csv", meter, every=3), Passing()]
        trainer = make_trainer(callbacks, max_epochs=epochs)
        trainer.fit(make_task(), make_loader(40), ckpt_path=checkpoint, weights_only=True)
        return trainer

    run(1).save_checkpoint(tmp_path / "part.ckpt")
    clock.now += 5000
    run(2, tmp_path / "part.ckpt")
    rows = read(tmp_path / "metrics.csv")
    assert [(r["step"], float(r["seconds"])) for r in rows] == [("3", 6), ("5", 10), ("6", 12), ("9", 18), ("10", 20)]
