"""A loss or gradient that is not finite stops training before the weights change."""

import math

import pytest
import torch
from lightning.pytorch import Callback

from polymamba.engine.callbacks import FiniteGuard, NonFinite


class SpoilLoss(Callback):
    """Makes the loss of one batch what it is told."""

    def __init__(self, value: float, batch: int):
        self.value, self.batch, self.seen = value, batch, -1

    def on_train_start(self, trainer, pl_module):
        step = pl_module.step

        def spoiled(batch, stage):
            loss, metrics = step(batch, stage)
            self.seen += 1
            return (loss * self.value if self.seen == self.batch else loss), metrics

        pl_module.step = spoiled


class SpoilGradient(Callback):
    """Puts a value into one parameter's gradient at one step, the loss staying finite."""

    def __init__(self, value: float, step: int):
        self.value, self.step = value, step

    def on_after_backward(self, trainer, pl_module):
        if trainer.global_step == self.step:
            pl_module.model[4].bias.grad[3] = self.value


class Weights(Callback):
    """Keeps the weights after every optimizer step."""

    def __init__(self):
        self.after = {}

    def on_train_start(self, trainer, pl_module):
        self.on_train_batch_end(trainer, pl_module, None, None, 0)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.after[trainer.global_step] = [p.detach().clone() for p in pl_module.parameters()]


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_loss_stops_before_the_step(make_task, make_loader, make_trainer, value, precision):
    weights, task = Weights(), make_task()
    trainer = make_trainer([weights, SpoilLoss(value, 3), FiniteGuard()], precision=precision, gradient_clip_val=1.0)
    with pytest.raises(NonFinite) as stopped:
        trainer.fit(task, make_loader())
    error = stopped.value
    assert (error.quantity, error.step) == ("loss", 3)
    assert "step 4" in str(error)
    assert "optimizer.lr" in str(error)
    assert same(weights.after[3], task.parameters())
    assert not same(weights.after[2], weights.after[3])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_gradient_stops_and_is_named(make_task, make_loader, make_trainer, value):
    weights, task = Weights(), make_task()
    with pytest.raises(NonFinite) as stopped:
        make_trainer([weights, SpoilGradient(value, 2), FiniteGuard()]).fit(task, make_loader())
    error = stopped.value
    assert (error.quantity, error.step, error.parameters) == ("gradient", 2, ["model.4.bias"])
    assert math.isfinite(error.loss)
    assert "model.4.bias" in str(error)
    assert same(weights.after[2], task.parameters())


def test_one_bad_batch_among_accumulated_ones(make_task, make_loader, make_trainer):
    weights, task = Weights(), make_task()
    trainer = make_trainer([weights, SpoilLoss(math.nan, 2), FiniteGuard()], accumulate_grad_batches=2)
    with pytest.raises(NonFinite) as stopped:
        trainer.fit(task, make_loader(64))
    assert stopped.value.step == 1
    assert same(weights.after[1], task.parameters())


def test_without_the_guard_training_goes_on_with_nan(make_task, make_loader, make_trainer):
    task = make_task()
    make_trainer([SpoilLoss(math.nan, 3)]).fit(task, make_loader())
    assert any(torch.isnan(p).any() for p in task.parameters())


@pytest.mark.parametrize("every", [3, 1000])
def test_fused_optimizer_leaves_the_weights_alone_until_somebody_looks(make_task, make_loader, make_trainer, every):
    weights = Weights()
    task = make_task(optimizer=lambda p: torch.optim.AdamW(p, lr=0.01, fused=True))
    guard = FiniteGuard(every=every, devices=("cpu",))
    with pytest.raises(NonFinite) as stopped:
        make_trainer([weights, SpoilGradient(math.nan, 3), guard], gradient_clip_val=1.0).fit(task, make_loader())
    assert (stopped.value.step, stopped.value.parameters) == (3, ["model.4.bias"])
    assert same(weights.after[3], task.parameters())
    if every == 1000:
        assert 8 in weights.after, "nobody looked before the end"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("fused", [True, False])
def test_on_a_gpu(make_task, make_loader, make_trainer, fused):
    weights, task = Weights(), make_task(optimizer=lambda p: torch.optim.AdamW(p, lr=0.01, fused=fused))
    callbacks = [weights, SpoilGradient(math.nan, 3), FiniteGuard(every=4)]
    with pytest.raises(NonFinite) as stopped:
        make_trainer(callbacks, accelerator="gpu", precision="bf16-mixed", gradient_clip_val=1.0).fit(
            task, make_loader()
        )
    assert (stopped.value.step, stopped.value.parameters) == (3, ["model.4.bias"])
    assert same(weights.after[3], [p.to(weights.after[3][0].device) for p in task.parameters()])


def test_no_checkpoint_is_written_after_a_bad_step(make_task, make_loader, make_trainer, tmp_path):
    class Save(Callback):
        def on_train_batch_end(self, trainer, *rest):
            trainer.save_checkpoint(tmp_path / f"{trainer.global_step}.ckpt")

    task = make_task(optimizer=lambda p: torch.optim.AdamW(p, lr=0.01, fused=True))
    guard = FiniteGuard(every=1000, devices=("cpu",))
    with pytest.raises(NonFinite):
        make_trainer([SpoilGradient(math.nan, 3), guard, Save()]).fit(task, make_loader())
    assert sorted(path.name for path in tmp_path.glob("*.ckpt")) == ["1.ckpt", "2.ckpt", "3.ckpt"]


def test_looking_away_changes_nothing_in_a_healthy_run(make_task, make_loader, make_trainer):
    ends = []
    for devices in ((), ("cpu",)):
        task = make_task(optimizer=lambda p: torch.optim.AdamW(p, lr=0.01, fused=True))
        torch.manual_seed(1)
        make_trainer([FiniteGuard(every=4, devices=devices)], gradient_clip_val=0.1).fit(task, make_loader())
        ends.append(list(task.parameters()))
    assert same(*ends)


def test_gradient_norm_is_the_norm_before_clipping(make_task, make_loader, make_trainer):
    class Check(Callback):
        checked = 0

        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            expected = torch.cat([p.grad.flatten() for p in pl_module.parameters()]).norm()
            torch.testing.assert_close(pl_module.gradient_norm, expected)
            self.checked += 1

    check = Check()
    make_trainer([FiniteGuard(), check], gradient_clip_val=1e-3).fit(make_task(), make_loader())
    assert check.checked == 10


def test_many_names_are_cut_short():
    error = NonFinite(0, math.nan, [f"layer{i}" for i in range(9)])
    assert "layer4 and 4 more" in str(error)
    assert "layer5" not in str(error)
