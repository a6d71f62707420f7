"""Whole runs on images."""

import torch

from polymamba.engine.checkpoints import folder as files
from polymamba.engine.command_line.compose import check, compose
from polymamba.engine.training.run import train
from polymamba.engine.training.run_folder import read_config

SMALL = (
    "domain=vision", "model.depth=1", "model.embed_dim=16", "data.loading.limit=5", "trainer.progress=none",
    "trainer.pictures=false", "model.backend=reference",
)  # fmt: skip


def run(*typed):
    return train(compose([*SMALL, *typed]), say=lambda text: None)


def test_weights_of_images_say_classes_scan_and_normalisation(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    about = files.read_about(files.find(run("scan=local", "scan.window=2", "trainer.steps=1").folder)[0])
    described = about["description"]["for_model"]
    assert described["classes"] == [str(digit) for digit in range(10)]
    assert about["scan"] == {"name": "local", "window": 2, "flip": False}
    assert len(described["mean"]) == len(described["std"]) == described["channels"] == 1
    assert about["model"]["depth"] == 1


def test_mixed_batches_are_the_same_after_resuming(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mixed = (
        "task.mixup=0.4",
        "task.cutmix=0.5",
        "data.loading.batch_size=2",
        "optimizer.schedule=constant",
        "optimizer.warmup=0",
    )
    whole = run(*mixed, "trainer.steps=5").folder
    parts = run(*mixed, "trainer.steps=2").folder
    stored = read_config(parts)
    stored["trainer"]["steps"] = 5
    train(check(stored), resume=files.find(parts, ("last",))[0], say=lambda text: None)
    one, other = (files.read_weights((folder / "checkpoints" / "last").resolve()) for folder in (whole, parts))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_larger_data_are_trained_longer():
    assert compose(["domain=vision", "data=cifar10"]).trainer.epochs != compose(["domain=vision"]).trainer.epochs
