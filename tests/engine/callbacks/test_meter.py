"""Speed and means, with a clock that the test moves."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback

from polymamba.engine.callbacks import Meter
from polymamba.engine.callbacks.meter import planned_steps


class Saving(Callback):
    """Something slow between the last batch and a validation."""

    def __init__(self, clock):
        self.clock = clock

    def on_validation_start(self, *arguments):
        self.clock.now += 11.0


class Passing(Callback):
    """Lets time pass: so much a training batch (more for the first), so much a validation batch."""

    def __init__(self, clock, training=0.5, first=60.0, validation=7.0):
        self.clock, self.training, self.first, self.validation = clock, training, first, validation
        self.batches = 0

    def on_before_backward(self, trainer, pl_module, loss):
        self.clock.now += self.training if self.batches else self.first
        self.batches += 1

    def on_validation_batch_end(self, *arguments):
        self.clock.now += self.validation


def test_speed_excludes_validation_and_the_first_batch(make_task, make_loader, make_trainer, clock):
    meter = Meter(clock=clock)
    trainer = make_trainer([Saving(clock), meter, Passing(clock)], max_epochs=3, val_check_interval=2)
    trainer.fit(make_task(), make_loader(40), make_loader(16, shuffle=False))
    rates = meter.rates()
    assert rates.seconds_per_step == pytest.approx(0.5)
    assert rates.samples_per_second == pytest.approx(16)
    assert rates.tokens_per_second == pytest.approx(64)
    assert meter.elapsed() == pytest.approx(60 + 14 * 0.5)
    assert meter.paused_seconds == pytest.approx(3 * 2 * (2 * 7.0 + 11.0))
    clock.now += 1000
    assert meter.elapsed() == pytest.approx(60 + 14 * 0.5), "the clock runs on after training"


def test_processor_time_is_that_of_training_alone(make_task, make_loader, make_trainer, clock):
    wall = [0.0]
    meter = Meter(clock=lambda: wall[0], processor_clock=clock)
    meter.load_state_dict(
        {"seconds": 0.0, "processor_seconds": 100.0, "epoch": 0, "seen": 0, "smoothed": {}, "sums": {}, "batches": 0}
    )
    trainer = make_trainer([Saving(clock), meter, Passing(clock)], max_epochs=3, val_check_interval=2)
    trainer.fit(make_task(), make_loader(40), make_loader(16, shuffle=False))
    assert meter.processor_seconds() == pytest.approx(100 + 60 + 14 * 0.5)
    assert meter.state_dict()["processor_seconds"] == meter.processor_seconds()
    assert meter.elapsed() == 0


def test_accumulated_batches_make_one_step(make_task, make_loader, make_trainer, clock):
    meter = Meter(clock=clock)
    trainer = make_trainer([meter, Passing(clock)], max_epochs=2, accumulate_grad_batches=4)
    trainer.fit(make_task(), make_loader(64))
    rates = meter.rates()
    assert rates.samples_per_second == pytest.approx(16)
    assert rates.seconds_per_step == pytest.approx(15 * 0.5 / 4)


def test_only_the_window_counts(make_task, make_loader, make_trainer, clock):
    class Slower(Passing):
        def on_before_backward(self, trainer, pl_module, loss):
            self.training = 1.0 if self.batches < 5 else 0.25
            super().on_before_backward(trainer, pl_module, loss)

    meter = Meter(window=5, clock=clock)
    make_trainer([meter, Slower(clock)], max_epochs=2).fit(make_task(), make_loader(40))
    assert meter.rates().samples_per_second == pytest.approx(32)


def test_remaining_time_includes_validation(make_task, make_loader, make_trainer, clock):
    seen = {}

    class Ask(Callback):
        def on_train_batch_end(self, trainer, pl_module, *rest):
            seen[trainer.global_step] = meter.remaining(trainer)

    meter = Meter(clock=clock)
    trainer = make_trainer([meter, Passing(clock, validation=5.0), Ask()], max_epochs=4)
    trainer.fit(make_task(), make_loader(40), make_loader(8, shuffle=False))
    assert seen[1] is None
    assert seen[2] == pytest.approx(18 * 0.5)
    assert seen[10] == pytest.approx(10 * (0.5 + 5 / 10))
    assert seen[20] == 0


def test_no_rate_without_a_second_batch(clock):
    assert Meter(clock=clock).rates() == (None, None, None)


def test_pictures_do_not_count(clock):
    meter = Meter(clock=clock)
    meter.on_train_start(SimpleNamespace(global_step=0, world_size=1, accumulate_grad_batches=1), None)
    clock.now += 3
    with meter.paused():
        clock.now += 100
        assert meter.elapsed() == 3
    clock.now += 2
    assert meter.elapsed() == 5
    with meter.paused():
        with meter.paused():
            clock.now += 50
        clock.now += 1
        assert meter.elapsed() == 5


def test_means_are_taken_once_and_smoothing_begins_at_the_first_value():
    meter = Meter()
    for value in (2.0, 4.0):
        meter.add({"train/loss": torch.tensor(value)})
    assert meter.take_means() == {"train/loss": 3.0}
    assert meter.take_means() == {}
    assert float(meter.smoothed["train/loss"]) == pytest.approx(3.0)
    for _ in range(300):
        meter.add({"train/loss": torch.tensor(10.0)})
    assert float(meter.smoothed["train/loss"]) == pytest.approx(10.0, rel=1e-3)


@pytest.mark.parametrize(
    ("epochs", "steps", "batches", "accumulate", "expected"),
    [
        (3, -1, 10, 1, 30),
        (3, -1, 10, 4, 9),
        (3, 20, 10, 1, 20),
        (-1, 50, float("inf"), 2, 50),
        (None, -1, 10, 1, None),
        (5, -1, float("inf"), 1, None),
    ],
)
def test_planned_steps(epochs, steps, batches, accumulate, expected):
    trainer = SimpleNamespace(
        max_epochs=epochs, max_steps=steps, num_training_batches=batches, accumulate_grad_batches=accumulate
    )
    assert planned_steps(trainer) == expected


@pytest.mark.parametrize("accumulate", [1, 2, 3])
def test_planned_steps_are_the_steps_made(make_task, make_loader, make_trainer, accumulate):
    trainer = make_trainer([], accumulate_grad_batches=accumulate)
    trainer.fit(make_task(), make_loader(40))
    assert planned_steps(trainer) == trainer.global_step


def test_memory_is_that_of_this_process():
    """The most it has had: so in a process of its own, which has had little."""
    code = (
        "import torch; from polymamba.engine.callbacks.meter import memory_bytes as used; before = used(torch.device('cpu'));"
        "block = torch.ones(64, 1024, 1024); assert used(torch.device('cpu')) - before > 0.9 * block.nbytes"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
