from itertools import permutations

import pytest
import torch
from torch import nn
from torchmetrics.functional.audio import scale_invariant_signal_noise_ratio as si_snr

from polymamba.core.errors import UserError
from polymamba.domains.audio.separation import Separation, best, ideal, unseparated

DESCRIBE = {"name": "voices", "sources": 2, "rate": 8000, "names": ["s1", "s2"]}


class Shares(nn.Module):
    """Says the mixture times a factor for each source."""

    def __init__(self, *factors):
        super().__init__()
        self.factors = nn.Parameter(torch.tensor(factors))

    def forward(self, mixture):
        return mixture[:, None] * self.factors[:, None]


@pytest.mark.parametrize("sources", [1, 2, 3, 4])
def test_the_best_permutation_is_the_best_of_all(sources):
    torch.manual_seed(0)
    estimates, truth = torch.randn(2, 3, sources, 50, dtype=torch.float64)
    found, order = best(estimates, truth, si_snr)
    orders = list(permutations(range(sources)))
    every = torch.stack([si_snr(estimates[:, list(order)], truth).mean(1) for order in orders])
    torch.testing.assert_close(found, every.max(0).values)
    for sample in range(3):
        assert tuple(order[sample].tolist()) == orders[int(every[:, sample].argmax())]


def test_the_mixture_itself_gains_nothing():
    sources = torch.randn(3, 2, 200)
    mixture = sources.sum(1)
    task = Separation(Shares(1.0, 1.0), DESCRIBE)
    loss, metrics = task.step((mixture, sources), "val")
    assert metrics["si_snr_improvement"].item() == pytest.approx(0, abs=1e-4)
    assert loss.item() == pytest.approx(-unseparated(mixture, sources, si_snr).mean().item(), abs=1e-4)


def test_the_oracle_bounds_from_above():
    sources = torch.stack([torch.sin(torch.arange(2000) * pitch) for pitch in (0.2, 1.5)])[None]
    mixture = sources.sum(1)
    assert (si_snr(ideal(mixture, sources), sources) > 20).all()


def test_what_is_good_enough_gives_no_gradient():
    sources = torch.stack([torch.randn(1, 100), torch.zeros(1, 100)], 1)
    task = Separation(Shares(1.0, 0.5), DESCRIBE, ceiling=-1000.0 + 1001)
    loss, _ = task.step((sources.sum(1), sources), "train")
    loss.backward()
    assert task.model.factors.grad.abs().max() == 0


def test_mixit_wants_two_mixtures_from_the_sum():
    class Knows(nn.Module):
        def forward(self, mixture):
            return torch.stack([*parts])[None]

    parts = torch.randn(3, 100)
    mixtures = torch.stack([parts[0] + parts[2], parts[1]])
    task = Separation(Knows(), {**DESCRIBE, "sources": 3}, objective="mixit", ceiling=30.0)
    assert task.step((mixtures, parts[None]), "train")[0].item() == pytest.approx(-30, abs=1e-3)
    other = Separation(Shares(0.5, 0.5, 0.5), {**DESCRIBE, "sources": 3}, objective="mixit")
    assert other.step((mixtures, parts[None]), "train")[0].item() > -10
    with pytest.raises(UserError, match="two mixtures"):
        task.step((mixtures[:1], parts[None]), "train")


def test_pictures_and_what_is_kept_for_them():
    task = Separation(Shares(1.0, 0.5), DESCRIBE, worst=2, sdr=True)
    torch.manual_seed(0)
    sources = torch.randn(3, 2, 3000)
    _, metrics = task.step((sources.sum(1), sources), "test")
    assert metrics.keys() == {"si_snr_improvement", "oracle_improvement", "mixture_si_snr", "sdr_improvement"}
    assert len(task.worst) == 2
    assert task.worst[0]["gained"] <= task.worst[1]["gained"]
    assert task.pictures("test").keys() == {"worst_predictions"}
    assert task.pictures("train", (sources.sum(1), sources)).keys() == {"first_batch"}
    task.on_test_start()
    assert not task.pictures("test")


def test_data_that_are_no_mixtures():
    with pytest.raises(UserError, match="no mixtures"):
        Separation(Shares(1.0), {"name": "sounds", "classes": ["a"]})
