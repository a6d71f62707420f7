"""The weight average: what it holds, when it is lent, how it comes back."""

import pytest
import torch
from lightning.pytorch import Callback

from polymamba.core.errors import UserError
from polymamba.engine.callbacks import WeightAverage, published_weights


class Watch(Callback):
    """Weights after every step, and those that validation and test ran with."""

    def __init__(self):
        self.trained, self.evaluated = [], []

    def on_train_batch_end(self, trainer, pl_module, *rest):
        if trainer.global_step > len(self.trained):
            self.trained.append(copy(pl_module.model))

    def on_validation_batch_start(self, trainer, pl_module, *rest):
        assert not pl_module.model.training
        self.evaluated.append(copy(pl_module.model))

    on_test_batch_start = on_validation_batch_start


def copy(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def expected(trained, decay, warmup):
    average = None
    for step, weights in enumerate(trained, 1):
        keep = min(decay, 1 - step ** (-2 / 3)) if warmup else decay
        keep = 0.0 if step == 1 else keep
        average = {n: w if average is None else average[n] * keep + w * (1 - keep) for n, w in weights.items()}
    return average


def close(first, second):
    return all(torch.allclose(first[name], second[name], atol=1e-6) for name in second)


def equal(first, second):
    return all(torch.equal(first[name], second[name]) for name in second)


@pytest.mark.parametrize("warmup", [True, False])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_average_is_the_published_formula(make_task, make_loader, make_trainer, warmup, accumulate):
    watch, average = Watch(), WeightAverage(0.8, warmup)
    trainer = make_trainer([average, watch], accumulate_grad_batches=accumulate)
    task = make_task()
    trainer.fit(task, make_loader(64))
    assert len(watch.trained) == 16 // accumulate
    wanted = expected(watch.trained, 0.8, warmup)
    assert close(average.averaged.state_dict(), wanted)
    assert equal(published_weights(trainer, task), average.averaged.state_dict())
    assert not close(task.model.state_dict(), wanted)


def test_lent_to_validation_and_test_and_taken_back(make_task, make_loader, make_trainer):
    watch, average, task = Watch(), WeightAverage(0.8), make_task()
    trainer = make_trainer([average, watch], max_epochs=2)
    trainer.fit(task, make_loader(40), make_loader(8, shuffle=False))
    trainer.test(task, make_loader(8, shuffle=False), verbose=False)
    halves = [expected(watch.trained[:count], 0.8, True) for count in (5, 10, 10)]
    assert len(watch.evaluated) == 3
    for seen, wanted in zip(watch.evaluated, halves, strict=True):
        assert close(seen, wanted)
    assert equal(task.model.state_dict(), watch.trained[-1])
    assert task.model is not average.averaged


def test_training_is_the_same_with_and_without(make_task, make_loader, make_trainer):
    ends = []
    for callbacks in ([], [WeightAverage(0.9)]):
        task = make_task()
        torch.manual_seed(1)
        make_trainer(callbacks).fit(task, make_loader(40), make_loader(8, shuffle=False))
        ends.append(task.model.state_dict())
    assert equal(*ends)


def test_taken_back_when_validation_fails(make_task, make_loader, make_trainer):
    class Fail(Callback):
        def on_validation_batch_end(self, *arguments):
            raise RuntimeError("broken")

    average, task = WeightAverage(0.9), make_task()
    model = task.model
    with pytest.raises(RuntimeError, match="broken"):
        make_trainer([average, Fail()]).fit(task, make_loader(40), make_loader(8, shuffle=False))
    assert task.model is model


def test_released_average_is_not_lent(make_task, make_loader, make_trainer):
    watch, average, task = Watch(), WeightAverage(0.8), make_task()
    trainer = make_trainer([average, watch])
    trainer.fit(task, make_loader(40))
    average.release()
    trainer.test(task, make_loader(8, shuffle=False), verbose=False)
    assert equal(watch.evaluated[-1], task.model.state_dict())
    assert equal(published_weights(trainer, task), task.model.state_dict())


def test_a_checkpoint_brings_the_average_to_a_test(make_task, make_loader, make_trainer, tmp_path):
    first = WeightAverage(0.8)
    trainer = make_trainer([first])
    trainer.fit(make_task(), make_loader(40))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    watch, second = Watch(), WeightAverage(0.8)
    again = make_trainer([second, watch])
    again.test(
        make_task(seed=4), make_loader(8, shuffle=False), tmp_path / "last.ckpt", verbose=False, weights_only=True
    )
    assert equal(watch.evaluated[-1], first.averaged.state_dict())


def test_state_is_plain_tensors(make_task, make_loader, make_trainer):
    average = WeightAverage(0.8)
    assert average.state_dict() == {}
    make_trainer([average]).fit(make_task(), make_loader(40))
    state = average.state_dict()
    assert state["updates"] == 10
    assert all(type(value) is torch.Tensor for value in state["weights"].values())


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.1, 2])
def test_decay_out_of_range(decay):
    with pytest.raises(UserError, match="above 0 and below 1"):
        WeightAverage(decay)
