"""Lightning's Trainer: signals that come while it has taken them over, the batches of trainer.overfit."""

import signal
from itertools import islice
from types import SimpleNamespace

import pytest
import torch

from polymamba.engine.checkpoints import folder as files
from polymamba.engine.training.stop import Stopped
from polymamba.engine.training.trainer import loaders

from ..test_signals import outcome, same


@pytest.mark.parametrize(("loader", "call"), [("train_dataloader", 2), ("val_dataloader", 1), ("test_dataloader", 1)])
@pytest.mark.parametrize("accumulate", [1, 4])
def test_a_signal_while_lightning_asks_for_data_is_answered_at_the_next_step(
    loader, call, accumulate, toy, monkeypatch
):
    from toy.data import Points

    arguments = (f"trainer.accumulate={accumulate}",)
    whole, made, calls = outcome(toy("run_dir=whole", *arguments).folder), getattr(Points, loader), []

    def signals(data):
        calls.append(signal.getsignal(signal.SIGTERM))
        if len(calls) == call:
            signal.raise_signal(signal.SIGTERM)
        return made(data)

    monkeypatch.setattr(Points, loader, signals)
    with pytest.raises(Stopped) as stopped:
        toy("run_dir=parts", *arguments)
    monkeypatch.setattr(Points, loader, made)
    assert "lightning" in type(calls[-1]).__module__, "Lightning had not taken signals over: this tests nothing"
    assert stopped.value.exit_code == 143
    assert stopped.value.step == (1 if loader != "test_dataloader" else whole[1]["global_step"])
    toy(resume=files.find("parts")[0])
    assert same(outcome("parts"), whole)


@pytest.mark.parametrize("exact", [False, True])
def test_what_a_task_wants_exact_is_not_rounded_to_bfloat16(toy, monkeypatch, exact):
    from toy.task import Classify

    seen, step = set(), Classify.step

    def recorded(task, batch, stage):
        seen.add(batch[0].dtype)
        return step(task, (batch[0].bfloat16(), batch[1]), stage)

    monkeypatch.setattr(Classify, "exact_inputs", exact)
    monkeypatch.setattr(Classify, "step", recorded)
    toy("trainer.precision=bf16", "trainer.steps=1")
    assert seen == {torch.float32 if exact else torch.bfloat16}


def test_overfit_trains_and_validates_on_the_same_first_batches():
    batches = [(torch.full((2,), number), torch.arange(2)) for number in range(5)]
    parts = SimpleNamespace(data=SimpleNamespace(train_dataloader=lambda: iter(batches)))
    found = loaders(SimpleNamespace(trainer=SimpleNamespace(overfit=3)), parts)
    for loader in (found["train_dataloaders"], found["val_dataloaders"]):
        assert len(loader) == 3
        for _ in range(2):
            assert all(given is batch for given, batch in zip(loader, islice(batches, 3), strict=True))
    assert loaders(SimpleNamespace(trainer=SimpleNamespace(overfit=0)), parts) == {"datamodule": parts.data}
