"""Runs that begin with weights that are already there."""

import shutil

import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.engine.checkpoints import folder as files
from polymamba.engine.checkpoints.initial_weights import read_initial

STILL = ("optimizer.lr=0", "optimizer.warmup=0")


def weights(folder, name="last"):
    return files.read_weights((folder / "checkpoints" / name).resolve())


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_begins_with_another_ones_best_weights(toy):
    first = toy("run_dir=first")
    said = []
    second = toy("run_dir=second", "init=first", *STILL, say=said.append)
    assert same(weights(second.folder), weights(first.folder, "best"))
    best = (first.folder / "checkpoints" / "best").resolve()
    assert f"begins     with the weights of first, {best.name}" in said[1]
    assert not same(weights(toy("run_dir=third", *STILL).folder), weights(first.folder, "best"))


def test_a_checkpoint_can_be_named(toy):
    first = toy("run_dir=first")
    path = min((first.folder / "checkpoints").glob("step-*"))
    assert same(weights(toy("run_dir=second", f"init={path}", *STILL).folder), files.read_weights(path))


def test_a_resumed_run_goes_on_with_its_own_weights(toy):
    toy("run_dir=first")
    whole = toy("run_dir=whole", "init=first")
    part = toy("run_dir=part", "init=first", "trainer.epochs=2", "optimizer.schedule=constant")
    assert not same(weights(part.folder), weights(whole.folder))
    shutil.rmtree("first")
    resumed = toy(resume=files.find(part.folder)[0])
    assert same(weights(resumed.folder), weights(part.folder))


def test_another_number_of_classes_keeps_all_but_the_last_layer():
    class Classifier(torch.nn.Module):
        def __init__(self, classes):
            super().__init__()
            self.body, self.head = torch.nn.Linear(3, 4), torch.nn.Linear(4, classes)

        def get_classifier(self):
            return self.head

    from polymamba.engine.checkpoints.initial_weights import Initial

    first, second = Classifier(5), Classifier(2)
    head = second.head.weight.clone()
    told = Initial(lambda model: first.state_dict(), "somewhere").put_into(second)
    assert told == "somewhere; new: head.weight, head.bias"
    assert torch.equal(second.body.weight, first.body.weight)
    assert torch.equal(second.head.weight, head)


def test_weights_that_do_not_fit(toy):
    first = toy("run_dir=first")
    with pytest.raises(UserError, match="do not fit"):
        toy("run_dir=second", "init=first", "model.hidden=9")
    with pytest.raises(UserError, match="no such checkpoint"):
        read_initial("frist")
    with pytest.raises(UserError, match="init names no weights"):
        read_initial("")
    (first.folder.parent / "empty").mkdir()
    with pytest.raises(UserError, match="init=null for random weights"):
        read_initial("empty")
