"""What a task offers to look at becomes files: when it is asked for, and of what."""

import pytest
import torch
from lightning.pytorch import Callback
from matplotlib.pyplot import imread

from polymamba.engine.callbacks import Meter, Pictures


class Batches(Callback):
    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.seen.append(batch[0].clone())


@pytest.fixture
def run(make_task, make_loader, make_trainer, tmp_path):
    def start(clock, *others, loader=None, after=5.0, task=None, **settings):
        task = task or make_task()
        pictures = Pictures(tmp_path, Meter(), after_seconds=after, clock=clock)
        drawn = []
        draw = task.pictures

        def remember(stage, batch=None):
            if stage == "train":
                drawn.append(batch[0].clone())
            return draw(stage, batch)

        task.pictures = remember
        trainer = make_trainer([pictures, *others], **settings)
        trainer.fit(task, make_loader(40), *([loader] if loader else []))
        return trainer, task, drawn

    return start


def test_the_first_batch_is_drawn_once(run, tmp_path, clock, make_loader):
    batches = Batches()
    _, _, drawn = run(clock, batches, loader=make_loader(8, shuffle=False), task=None, max_epochs=3)
    assert len(drawn) == 1
    assert torch.equal(drawn[0], batches.seen[0])
    assert imread(tmp_path / "first_batch.png").ndim == 3


def test_it_is_drawn_some_seconds_into_training(run, clock, tmp_path):
    class Look(Callback):
        found = ()

        def on_train_batch_end(self, trainer, pl_module, *rest):
            clock.now += 2
            self.found = (*self.found, (tmp_path / "first_batch.png").exists())

    look = Look()
    run(clock, look, max_epochs=1)
    assert look.found == (False, False, False, True, True)


def test_it_is_drawn_when_the_run_fails(run, clock, tmp_path):
    class Fail(Callback):
        def on_before_optimizer_step(self, *arguments):
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        run(clock, Fail())
    assert (tmp_path / "first_batch.png").exists()


def test_worst_predictions_follow_a_test(run, clock, tmp_path, make_loader):
    trainer, task, _ = run(clock)
    assert not (tmp_path / "worst_predictions.png").exists()
    trainer.test(task, make_loader(40, shuffle=False), verbose=False)
    assert imread(tmp_path / "worst_predictions.png").ndim == 3
    assert not list(tmp_path.glob("*.tmp"))


def test_no_picture_where_the_task_draws_none(run, clock, tmp_path, make_task, make_loader):
    task = make_task()
    task.pictures = lambda stage, batch=None: {}
    trainer, task, _ = run(clock, task=task)
    trainer.test(task, make_loader(40, shuffle=False), verbose=False)
    assert not (tmp_path / "worst_predictions.png").exists()


def test_a_tasks_own_names_and_texts(run, clock, tmp_path, make_task, make_loader):
    task = make_task()
    task.pictures = lambda stage, batch=None: {f"of_{stage}": f"{stage} {batch is not None}"}
    trainer, task, _ = run(clock, task=task, loader=make_loader(8, shuffle=False), max_epochs=2)
    trainer.test(task, make_loader(40, shuffle=False), verbose=False)
    texts = {path.name: path.read_text() for path in tmp_path.glob("*.txt")}
    assert texts == {
        "of_train.txt": "step 5\ntrain True\n\n",
        "of_val.txt": "step 5\nval False\n\nstep 10\nval False\n\n",
        "of_test.txt": "step 10\ntest False\n\n",
    }
