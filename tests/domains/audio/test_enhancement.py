import math

import pytest
import torch
from torch import nn

from polymamba.core.errors import UserError
from polymamba.domains.audio import perceptual
from polymamba.domains.audio.discriminator import MetricDiscriminator
from polymamba.domains.audio.enhancement import Enhancement, phase_loss
from polymamba.domains.audio.models.semamba import SEMamba

DESCRIBE = {"name": "noisy_speech", "sources": 1, "rate": 16000, "names": ["clean"]}


class Factor(nn.Module):
    """Says the recording times a factor."""

    def __init__(self, factor=1.0):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, recording):
        return self.factor * recording[:, None]


@pytest.fixture
def batch():
    torch.manual_seed(0)
    clean = torch.sin(torch.arange(4000) * 0.3).repeat(2, 1)
    return clean + 0.1 * torch.randn(2, 4000), clean[:, None]


def test_phases_are_counted_modulo_a_turn():
    said, true = torch.zeros(1, 5, 6), torch.full((1, 5, 6), 2 * math.pi)
    assert phase_loss(said, true).item() == pytest.approx(0, abs=1e-5)
    # one step at the first bin and one at the first frame, and all phases half a turn off
    expected = math.pi * (1 + 1 / 5 + 1 / 6)
    assert phase_loss(said, torch.full((1, 5, 6), math.pi)).item() == pytest.approx(expected, rel=1e-5)


def test_the_truth_costs_nothing(batch):
    task = Enhancement(Factor(), DESCRIBE, perceptual=False)
    loss, metrics = task.step((batch[1][:, 0], batch[1]), "train")
    assert metrics.keys() == {"magnitude", "phase", "complex", "time", "consistency"}
    assert loss.item() < 1e-3
    assert task.step(batch, "train")[0].item() > 0.05


@pytest.mark.parametrize("name", ["magnitude", "phase", "complex", "time", "consistency"])
def test_each_term_teaches_the_model(batch, name):
    weights = dict.fromkeys(("magnitude", "phase", "complex", "time", "consistency"), 0.0) | {name: 1.0}
    task = Enhancement(SEMamba(4, 1, 64, d_state=4, expand=2), DESCRIBE, perceptual=False, **weights)
    task.step(batch, "train")[0].backward()
    gradients = [each.grad for each in task.model.parameters()]
    assert all(each is not None and each.isfinite().all() for each in gradients)
    assert sum(each.abs().sum() for each in gradients) > 0


def test_what_is_said_at_the_end(batch):
    task = Enhancement(Factor(2.0), DESCRIBE, perceptual=False)
    _, metrics = task.step(batch, "test")
    assert metrics["si_snr_improvement"].item() == pytest.approx(0, abs=1e-3)
    assert metrics["oracle_improvement"] > 5
    assert metrics["mixture_si_snr"].item() == pytest.approx(17, abs=1)


def test_measures_that_are_not_installed_are_named(batch, monkeypatch, caplog):
    monkeypatch.setattr(perceptual, "find_spec", lambda name: None)
    perceptual.usable.cache_clear()
    assert perceptual.usable(16000) == ()
    assert "PESQ is not measured" in caplog.text
    assert "polymamba[audio]" in caplog.text
    with pytest.raises(UserError, match="not installed"):
        Enhancement(Factor(), DESCRIBE, metric=0.05)
    perceptual.usable.cache_clear()


def test_the_discriminator_learns_quality():
    torch.manual_seed(0)
    judge, clean = MetricDiscriminator(2e-3), torch.rand(4, 33, 40)
    said = clean + torch.tensor([0.0, 0.0, 3.0, 3.0])[:, None, None]
    quality = torch.tensor([0.9, math.nan, 0.1, 0.1])
    losses = [judge.learn(clean, said, quality).item() for _ in range(25)]
    assert losses[-1] < 0.6 * losses[0]
    estimate = (clean + 3).requires_grad_()
    before = [each.clone() for each in judge.parameters()]
    judge.zero_grad()
    judge.displeasure(clean, estimate).backward()
    assert estimate.grad.abs().sum() > 0
    assert all(each.grad is None for each in judge.parameters())
    assert all(map(torch.equal, before, judge.parameters()))


def test_with_a_discriminator_and_on_from_a_checkpoint(batch):
    pytest.importorskip("pesq")
    model = SEMamba(4, 1, 64, d_state=4, expand=2)
    task = Enhancement(model, DESCRIBE, metric=0.05)
    loss, metrics = task.step(batch, "train")
    loss.backward()
    assert metrics["discriminator"].isfinite()
    checkpoint = {}
    task.on_save_checkpoint(checkpoint)
    other = Enhancement(model, DESCRIBE, metric=0.05)
    other.on_load_checkpoint(checkpoint)
    assert len(other.discriminator.optimizer.state) == len(task.discriminator.optimizer.state) > 0


def test_several_voices():
    with pytest.raises(UserError, match="one voice"):
        Enhancement(Factor(), {**DESCRIBE, "sources": 2})
