"""Intervals hold what they say."""

import pytest
import torch
from torch.testing import assert_close

from polymamba.domains.timeseries.conformal import QUANTILES, SPEED, Adaptive, Conformal, crps, outside, pinball


def test_the_interval_is_the_rank_that_the_theorem_names():
    errors = torch.tensor([3.0, -1.0, 2.0, -5.0, 4.0, 0.5, -6.0, 7.0, 8.0])[:, None, None]
    found = Conformal.of(errors)
    # 9 errors: the interval of 90 % is the 9th smallest, of 50 % the 5th
    assert found.width(0.9).item() == 8
    assert found.width(0.5).item() == 4
    assert found.width(0.99).item() == 8


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9])
def test_exchangeable_errors_are_covered(level):
    errors = torch.randn(4_000, 3, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 5.0])
    width = Conformal.of(errors[:2_000]).width(level)
    assert (errors[2_000:].abs() <= width).float().mean() == pytest.approx(level, abs=0.02)


def test_pinball_is_smallest_at_its_quantile():
    truth = torch.arange(101.0)
    for level in (0.1, 0.5, 0.9):
        losses = torch.stack([pinball(truth, torch.tensor(guess), level).mean() for guess in range(101)])
        assert losses.argmin() == round(100 * level)


def test_crps_of_a_certain_forecast_is_its_absolute_error():
    error = torch.tensor([[[2.0], [-3.0]]])
    certain = torch.zeros(len(QUANTILES), 2, 1)
    assert_close(crps(error, certain), error.abs())


def test_crps_of_a_normal_distribution():
    normal = torch.distributions.Normal(0.0, 1.0)
    quantiles = normal.icdf(torch.tensor(QUANTILES))[:, None, None]
    # x (2 F(x) - 1) + 2 f(x) - 1 / sqrt(pi), Gneiting and Raftery 2007
    x = torch.tensor(0.7)
    expected = x * (2 * normal.cdf(x) - 1) + 2 * normal.log_prob(x).exp() - torch.pi**-0.5
    assert crps(x.view(1, 1, 1), quantiles).item() == pytest.approx(expected.item(), abs=0.02)


def drifting(windows, sizes, seed=0):
    """Scores (windows, 3, 2) of errors whose size goes evenly through these."""
    noise = torch.randn(windows, 3, 2, generator=torch.Generator().manual_seed(seed)).abs()
    return noise * torch.linspace(*sizes, windows)[:, None, None]


def test_adapting_intervals_hold_what_they_say_where_errors_change():
    known = Conformal.of(drifting(1_000, (2.0, 2.0)))
    scores = drifting(3_000, (1.3, 1.0), seed=1)
    split = (scores <= known.width(0.9)).float().mean()
    widths = Adaptive(known, 0.9).follow(range(3_000), scores)
    held = (scores <= widths).float().mean()
    assert split > 0.96
    assert held == pytest.approx(0.9, abs=0.02)
    assert widths.mean() < known.width(0.9).mean()


def test_an_interval_knows_only_what_has_come_to_pass():
    known, scores = Conformal.of(drifting(50, (1.0, 1.0))), drifting(40, (1.0, 3.0), seed=1)
    widths = Adaptive(known, 0.8).follow(range(40), scores)
    for step in range(3):
        other = scores.clone()
        # step h of the window at 20 comes to pass at 20 + h, before the forecast at 21 + h
        other[20, step] = 100 - 200 * (scores[20, step] > widths[20, step]).float()
        changed = Adaptive(known, 0.8).follow(range(40), other)
        assert torch.equal(changed[: 21 + step], widths[: 21 + step])
        assert not torch.equal(changed[21 + step :, step], widths[21 + step :, step])
        others = [each for each in range(3) if each != step]
        assert torch.equal(changed[:, others], widths[:, others])


def test_the_level_moves_as_the_paper_says():
    known = Conformal.of(drifting(400, (1.0, 1.0)))
    adaptive = Adaptive(known, 0.9)
    assert torch.equal(adaptive.width(0), known.width(0.9))
    adaptive.follow([0, 1, 2], torch.stack([torch.full((3, 2), each) for each in (9.0, 0.0, 9.0)]))
    adaptive.width(3)
    assert adaptive.miss[0, 0] == pytest.approx(0.1 + SPEED * (3 * 0.1 - 2))
    assert adaptive.miss[1, 0] == pytest.approx(0.1 + SPEED * (2 * 0.1 - 1))
    assert adaptive.miss[2, 0] == pytest.approx(0.1 + SPEED * (0.1 - 1))


def test_windows_that_lie_apart_are_heard_of_late():
    known = Conformal.of(drifting(400, (1.0, 1.0)))
    adaptive = Adaptive(known, 0.9)
    adaptive.follow([0, 2], torch.full((2, 3, 2), 9.0))
    adaptive.width(4)
    assert (adaptive.miss[:, 0] < 0.1).tolist() == [True, True, True]
    assert adaptive.miss[2, 0] == pytest.approx(0.1 - SPEED * 0.9)
    assert adaptive.miss[0, 0] == pytest.approx(0.1 - SPEED * 0.9 * 2)


def test_outside_is_below_zero_within():
    truth = torch.tensor([0.0, 2.0, 5.0])
    assert outside(truth, torch.tensor(1.0), torch.tensor(4.0)).tolist() == [1.0, -1.0, 1.0]
    assert outside(truth, torch.tensor(1.0), torch.tensor(1.0)).tolist() == [1.0, 1.0, 4.0]
