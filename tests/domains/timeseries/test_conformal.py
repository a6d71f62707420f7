"""Intervals hold what they say."""

import pytest
import torch
from torch.testing import assert_close

from polymamba.domains.timeseries.conformal import QUANTILES, Conformal, crps, pinball


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
