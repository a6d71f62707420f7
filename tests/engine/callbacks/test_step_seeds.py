"""A run that was interrupted ends with the same bits as one that was not."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, Dataset

from polymamba.engine.callbacks import default_callbacks, published_weights
from polymamba.engine.callbacks.step_seeds import seed_generators

TIMES = ("seconds", "cpu_seconds", "seconds_per_step", "samples_per_second", "tokens_per_second", "memory_gb")


class Greedy(Dataset):
    """Draws from all three global generators, in the process that trains, for nothing."""

    def __len__(self):
        return 40

    def __getitem__(self, index):
        torch.randn(1), np.random.rand(), random.random()  # noqa: NPY002
        return torch.linspace(-1, index * 0.05, 16).reshape(1, 4, 4), index % 7


class GreedyLoader(DataLoader):
    """Batches in a fixed order; remembers how many of an epoch were read."""

    def __init__(self):
        super().__init__(Greedy(), batch_size=8)
        self.read = self.start = 0

    # A generator begins when it is first read: Lightning makes iterators that it never reads.
    def __iter__(self):
        start, self.start = self.start % len(self), 0
        for index, batch in enumerate(super().__iter__()):
            if index >= start:
                self.read = index + 1
                yield batch

    def state_dict(self):
        return {"read": self.read}

    def load_state_dict(self, state):
        self.read = self.start = state["read"]


def run(make_task, make_loader, make_trainer, folder, resume=None, seed=0, val_every=3, **settings):
    """Trains 3 epochs of 5 batches, saving at every batch; returns the task, the trainer, the folder's table's rows."""
    folder.mkdir(exist_ok=True)
    options = SimpleNamespace(ema=0.9, log_every=4, pictures=False, progress="none")
    callbacks = default_callbacks(SimpleNamespace(seed=seed, trainer=options), folder)
    steps = ModelCheckpoint(folder, "step{step}", save_top_k=-1, every_n_train_steps=1, auto_insert_metric_name=False)
    ends = ModelCheckpoint(folder, "val{step}", monitor="val/loss", save_top_k=-1, auto_insert_metric_name=False)
    trainer = make_trainer(
        [*callbacks, *([] if resume else [steps, ends])],
        max_epochs=3,
        enable_checkpointing=resume is None,
        val_check_interval=val_every,
        gradient_clip_val=1.0,
        **settings,
    )
    task = make_task(seed=0 if resume is None else 9, noise=0.4)
    random.seed(resume and 1)
    torch.manual_seed(77)
    trainer.fit(task, GreedyLoader(), make_loader(16, shuffle=False), ckpt_path=resume, weights_only=True)
    table = next(callback.table for callback in callbacks if hasattr(callback, "table"))
    rows = [{name: cell for name, cell in row.items() if name not in TIMES} for row in table.rows]
    return task, trainer, rows


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
@pytest.mark.parametrize(("accumulate", "every"), [(1, 3), (2, 4)])
def test_resume_is_bitwise(make_task, make_loader, make_trainer, tmp_path, accumulate, every):
    whole, whole_trainer, rows = run(
        make_task, make_loader, make_trainer, tmp_path / "whole", val_every=every, accumulate_grad_batches=accumulate
    )
    last = whole_trainer.global_step
    wanted = published_weights(whole_trainer, whole)
    assert not equal(wanted, whole.model.state_dict())
    files = sorted((tmp_path / "whole").glob("*.ckpt"))
    assert len(files) > 2 * 15 // (2 * accumulate)
    for file in files[:: 2 if accumulate == 1 else 1]:
        folder = tmp_path / file.stem
        folder.mkdir()
        # The table as the killed process left it, its rows after the checkpoint included.
        (folder / "metrics.csv").write_bytes((tmp_path / "whole" / "metrics.csv").read_bytes())
        task, trainer, resumed = run(
            make_task, make_loader, make_trainer, folder, file, val_every=every, accumulate_grad_batches=accumulate
        )
        assert trainer.global_step == last, file
        assert equal(whole.model.state_dict(), task.model.state_dict()), file
        assert equal(wanted, published_weights(trainer, task)), file
        key = lambda row: (int(row["step"]), row["stage"])  # noqa: E731
        assert sorted(rows, key=key) == sorted(resumed, key=key), file


def test_validating_more_often_does_not_change_training(make_task, make_loader, make_trainer, tmp_path):
    weights = []
    for every in (2, 5):
        task, _, _ = run(make_task, make_loader, make_trainer, tmp_path / str(every), val_every=every)
        weights.append(task.model.state_dict())
    assert equal(*weights)


def test_another_seed_is_another_run(make_task, make_loader, make_trainer, tmp_path):
    first, _, _ = run(make_task, make_loader, make_trainer, tmp_path / "a", seed=0)
    second, _, _ = run(make_task, make_loader, make_trainer, tmp_path / "b", seed=1)
    assert not equal(first.model.state_dict(), second.model.state_dict())


def draws():
    return random.random(), np.random.rand(), torch.rand(3).tolist()  # noqa: NPY002


def test_seeds_reach_all_three_generators():
    seed_generators(1, 2, 3)
    first = draws()
    assert draws() != first
    seed_generators(1, 2, 3)
    assert draws() == first
    seed_generators(1, 2, 4)
    other = draws()
    assert all(a != b for a, b in zip(first, other, strict=True))
