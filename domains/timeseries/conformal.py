"""Intervals around forecasts from the errors on validation windows: split conformal prediction (Lei et al. 2018)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

QUANTILES = tuple(number / 20 for number in range(1, 20))


@dataclass(frozen=True)
class Conformal:
    """What was seen of a model's errors, for every step of the horizon and every variable.

    Args:
        errors: (windows, horizon, variables): truth minus forecast of windows that were not trained on, sorted by size along the
            first axis.
    """

    errors: Tensor

    @classmethod
    def of(cls, errors: Tensor) -> Conformal:
        """From errors in any order."""
        return cls(errors.sort(0).values)

    def width(self, level: float) -> Tensor:
        """How far an interval that shall hold the truth with this probability reaches to either side, (horizon, variables).

        It is the ceil((n + 1) level)-th smallest of the n absolute errors: where a coming window is exchangeable with those
        seen, the interval holds at least `level` of the time. With too few errors it is the largest that was seen.
        """
        windows = len(self.errors)
        rank = min(math.ceil((windows + 1) * level), windows)
        return self.errors.abs().kthvalue(rank, 0).values

    def quantiles(self) -> Tensor:
        """The errors' quantiles at `QUANTILES`, (quantiles, horizon, variables); to be added to a forecast."""
        place = torch.tensor(QUANTILES, dtype=torch.float64) * (len(self.errors) - 1)
        return self.errors[place.round().long()]


def pinball(truth: Tensor, quantile: Tensor, level: float) -> Tensor:
    """The loss that a quantile of this level makes smallest (Koenker and Bassett 1978), elementwise."""
    above = truth - quantile
    return torch.maximum(level * above, (level - 1) * above)


def crps(error: Tensor, quantiles: Tensor) -> Tensor:
    """The continuous ranked probability score of a forecast with these quantiles about it: twice the mean pinball loss.

    Args:
        error: (batch, horizon, variables), truth minus forecast.
        quantiles: of the errors, (quantiles, horizon, variables), at `QUANTILES`.

    Returns:
        (batch, horizon, variables).
    """
    losses = [pinball(error, each, level) for level, each in zip(QUANTILES, quantiles, strict=True)]
    return 2 * torch.stack(losses).mean(0)
