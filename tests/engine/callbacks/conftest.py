"""A task, data and trainer so small that a test trains in a second."""

import logging
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from matplotlib.figure import Figure
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from polymamba.domains.task import Task

CLASSES = 7


def pytest_collection_modifyitems(items):
    # Lightning's own use of a renamed PyTorch helper, and its advice on workers.
    for item in (item for item in items if Path(__file__).parent in item.path.parents):
        for message in (
            "ignore:.*treespec, LeafSpec.*",
            "ignore:.*does not have many workers.*",
            "ignore:.*does not have a `.*_dataloader` method",
            "ignore:You defined a `validation_step` but have no `val_dataloader`.*",
        ):
            item.add_marker(pytest.mark.filterwarnings(message))


@pytest.fixture(autouse=True)
def quiet():
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Classify(Task):
    """Cross entropy and accuracy; with noise, training draws from all three global generators."""

    monitor = ("val/accuracy", "max")

    def __init__(self, model: nn.Module, noise: float = 0.0):
        super().__init__(model, {})
        self.noise = noise

    def step(self, batch, stage):
        inputs, labels = batch
        if stage == "train" and self.noise:
            drawn = random.random() + np.random.rand()  # noqa: NPY002
            inputs = inputs + self.noise * drawn * torch.randn_like(inputs)
        scores = self.model(inputs)
        return nn.functional.cross_entropy(scores, labels), {"accuracy": (scores.argmax(1) == labels).float().mean()}

    def pictures(self, stage, batch=None):
        name = {"train": "first_batch", "test": "worst_predictions"}.get(stage)
        return {name: Figure()} if name else {}


@pytest.fixture
def make_task():
    def make(seed: int = 0, optimizer=None, **settings) -> LightningModule:
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.GELU(), nn.Dropout(0.2), nn.Linear(12, CLASSES))
        model.tokens = 4
        task = Classify(model, **settings)

        def factory(network):
            made = (optimizer or (lambda p: torch.optim.AdamW(p, lr=0.01)))(network.parameters())
            return made, torch.optim.lr_scheduler.LambdaLR(made, lambda step: 1 / (1 + step))

        task.optimizer_factory = factory
        return task

    return make


@pytest.fixture
def make_loader():
    def make(samples: int = 40, batch_size: int = 8, shuffle: bool = True) -> DataLoader:
        generator = torch.Generator().manual_seed(5)
        inputs = torch.randn(samples, 1, 4, 4, generator=generator)
        labels = torch.arange(samples) % CLASSES
        loader = torch.Generator().manual_seed(6)
        return DataLoader(TensorDataset(inputs, labels), batch_size=batch_size, shuffle=shuffle, generator=loader)

    return make


@pytest.fixture
def make_trainer(tmp_path):
    def make(callbacks, **settings) -> Trainer:
        fixed = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        fixed |= {"enable_model_summary": False, "accelerator": "cpu", "max_epochs": 2, "default_root_dir": tmp_path}
        fixed |= {"num_sanity_val_steps": 0, "callbacks": callbacks, "log_every_n_steps": 1}
        return Trainer(**(fixed | settings))

    return make


class Clock:
    """Time that passes only when told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()
