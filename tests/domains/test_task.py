"""The base of all tasks: logging, optimizer, clipping."""

import csv
import logging

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from polymamba.core.moe import MixtureOfExperts, balance_loss
from polymamba.domains.task import Task

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec.*"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
]


class Regression(Task):
    """Mean squared error, and the mean absolute error as a second metric."""

    def step(self, batch, stage):
        inputs, targets = batch
        error = self.model(inputs) - targets
        return error.square().mean(), {"error": error.detach().abs().mean()}


def loader(samples=20, batch_size=8):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(samples, 3, generator=generator)
    return DataLoader(TensorDataset(inputs, inputs.sum(1, keepdim=True)), batch_size)


def make_task(schedule=True):
    torch.manual_seed(0)
    task = Regression(nn.Linear(3, 1), {})

    def factory(model):
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step) if schedule else None

    task.optimizer_factory = factory
    return task


def make_trainer(tmp_path, *callbacks, **settings):
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    fixed = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    fixed |= {"enable_model_summary": False, "max_epochs": 2, "default_root_dir": tmp_path, "callbacks": [*callbacks]}
    return Trainer(**(fixed | settings))


class Follow(Callback):
    """What every batch's step returned, and the learning rate after it."""

    def __init__(self):
        self.scalars, self.rates, self.sizes = [], [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.scalars.append({name: float(value) for name, value in outputs["scalars"].items()})
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])
        self.sizes.append(pl_module.samples(batch))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_epoch_means_weigh_every_sample_alike(tmp_path, accumulate):
    follow, task = Follow(), make_task()
    trainer = make_trainer(tmp_path, follow, accumulate_grad_batches=accumulate)
    trainer.fit(task, loader(), loader())
    assert follow.sizes == [8, 8, 4] * 2
    for name in ("loss", "error"):
        last = [(scalars[f"train/{name}"], size) for scalars, size in zip(follow.scalars, follow.sizes, strict=True)][
            3:
        ]
        mean = sum(value * size for value, size in last) / 20
        assert float(trainer.callback_metrics[f"train/{name}_epoch"]) == pytest.approx(mean, rel=1e-5)
    found = trainer.validate(task, loader(), verbose=False)[0]
    inputs, targets = loader().dataset.tensors
    error = (task.model(inputs) - targets).detach()
    assert found == {
        "val/loss": pytest.approx(float(error.square().mean()), rel=1e-5),
        "val/error": pytest.approx(float(error.abs().mean()), rel=1e-5),
    }
    assert trainer.test(task, loader(), verbose=False)[0].keys() == {"test/loss", "test/error"}


@pytest.mark.parametrize(("accumulate", "exponents"), [(1, [1, 2, 3, 4, 5, 6]), (2, [0, 1, 2, 2, 3, 4])])
def test_the_schedule_moves_once_an_optimizer_step(tmp_path, accumulate, exponents):
    follow = Follow()
    make_trainer(tmp_path, follow, accumulate_grad_batches=accumulate).fit(make_task(), loader())
    assert follow.rates == [0.5**exponent for exponent in exponents]


def test_without_a_schedule_the_rate_stays(tmp_path):
    follow = Follow()
    make_trainer(tmp_path, follow).fit(make_task(schedule=False), loader())
    assert set(follow.rates) == {1.0}


def test_training_without_an_optimizer_is_refused(tmp_path):
    task = Regression(nn.Linear(3, 1), {})
    with pytest.raises(RuntimeError, match="optimizer_factory"):
        make_trainer(tmp_path).fit(task, loader())
    make_trainer(tmp_path).test(task, loader(), verbose=False)


class Gradients(Callback):
    """The gradient before and after clipping."""

    def __init__(self):
        self.before, self.after = [], []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.before.append(self.flat(pl_module))

    def on_train_batch_end(self, trainer, pl_module, *rest):
        self.after.append(self.flat(pl_module))

    def flat(self, module):
        return torch.cat([p.grad.flatten() for p in module.parameters()])


@pytest.mark.parametrize("known", [True, False])
def test_clipping_by_norm(tmp_path, known):
    class Tell(Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            if known:
                pl_module.gradient_norm = torch.cat([p.grad.flatten() for p in pl_module.parameters()]).norm()

    gradients = Gradients()
    make_trainer(tmp_path, Tell(), gradients, gradient_clip_val=2.0).fit(make_task(), loader())
    norms = [float(before.norm()) for before in gradients.before]
    assert max(norms) > 2 > min(norms)
    for before, after in zip(gradients.before, gradients.after, strict=True):
        torch.testing.assert_close(after, before * min(1.0, 2 / float(before.norm())), rtol=1e-4, atol=1e-6)


def test_clipping_by_value(tmp_path):
    gradients = Gradients()
    trainer = make_trainer(tmp_path, gradients, gradient_clip_val=0.1, gradient_clip_algorithm="value")
    trainer.fit(make_task(), loader())
    assert any((before.abs() > 0.1).any() for before in gradients.before)
    for before, after in zip(gradients.before, gradients.after, strict=True):
        assert torch.equal(after, before.clamp(-0.1, 0.1))


def test_fused_optimizers_may_be_clipped_under_autocast(tmp_path):
    task = make_task()
    task.optimizer_factory = lambda model: (torch.optim.AdamW(model.parameters(), lr=0.1, fused=True), None)
    before = [p.clone() for p in task.parameters()]
    make_trainer(tmp_path, precision="bf16-mixed", gradient_clip_val=0.5).fit(task, loader())
    assert not any(torch.equal(a, b) for a, b in zip(before, task.parameters(), strict=True))


def test_inputs_samples_and_tokens():
    task = Regression(nn.Linear(3, 1), {})
    images = torch.zeros(5, 3)
    assert all(task.inputs(batch)[0] is images for batch in (images, (images, 1), [images, images]))
    assert [task.samples(batch) for batch in (images, (images, 1), [[images]], {"x": images})] == [5, 5, 5, 5]
    assert task.tokens((images, images)) is None
    task.model.tokens = 7
    assert task.tokens((images, images)) == 35


def test_a_task_is_saved_under_its_models_names():
    task = make_task()
    assert set(task.state_dict()) == {"model.weight", "model.bias"}
    assert [task.pictures(stage) for stage in ("train", "val", "test")] == [{}, {}, {}]


def test_loggers_hear_the_training_loss(tmp_path):
    logger, follow = CSVLogger(tmp_path), Follow()
    trainer = make_trainer(tmp_path, follow, logger=logger, log_every_n_steps=2)
    trainer.fit(make_task(), loader())
    with open(logger.experiment.metrics_file_path, newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["train/loss"]]
    assert [row["step"] for row in rows] == ["1", "3", "5"]
    wanted = [follow.scalars[index]["train/loss"] for index in (1, 3, 5)]
    assert [float(row["train/loss"]) for row in rows] == pytest.approx(wanted)


class Logits(Task):
    """Cross-entropy of whatever a model says."""

    def step(self, batch, stage):
        inputs, targets = batch
        return nn.functional.cross_entropy(self.model(inputs), targets), {}


def with_experts():
    torch.manual_seed(0)
    return nn.Sequential(MixtureOfExperts(8, 16, num_experts=4), nn.Linear(8, 3))


@pytest.mark.parametrize("weight", [0.0, 1.0, 3.0])
def test_the_experts_of_any_model_are_balanced(weight):
    """The router's gradient has the balance in it, and the loss says how much of it that is."""
    inputs, targets = torch.randn(2, 6, 8), torch.randint(3, (2, 6))
    batch = (inputs.flatten(0, 1)[None], targets.flatten())

    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = with_experts()

        def forward(self, x):
            return self.inner(x)[0]

    task = Logits(Flat(), {}, auxiliary=weight).train()
    loss, scalars = task.loss_to_minimise(batch)
    router = task.model.inner[0].router.weight
    plain = nn.functional.cross_entropy(task.model(batch[0]), batch[1])
    balance = balance_loss(task.model)
    torch.testing.assert_close(loss, plain + weight * 0.01 * balance)
    torch.testing.assert_close(scalars["auxiliary"], (weight * 0.01 * balance).detach())
    assert not scalars["auxiliary"].requires_grad
    (found,) = torch.autograd.grad(loss, router)
    task.model.zero_grad()
    plain = nn.functional.cross_entropy(task.model(batch[0]), batch[1])
    (expected,) = torch.autograd.grad(plain + weight * 0.01 * balance_loss(task.model), router)
    torch.testing.assert_close(found, expected)
    assert task.step(batch, "val")[1] == {}


def test_without_experts_the_loss_is_the_tasks():
    task = Logits(nn.Linear(8, 3), {}).train()
    batch = (torch.randn(5, 8), torch.tensor([0, 1, 2, 0, 1]))
    loss, scalars = task.loss_to_minimise(batch)
    torch.testing.assert_close(loss, nn.functional.cross_entropy(task.model(batch[0]), batch[1]))
    assert scalars == {}
