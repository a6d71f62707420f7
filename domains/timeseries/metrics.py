"""Errors of forecasts by the field's definitions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from .models.naive import SeasonalNaive


def mase(error: Tensor, scale: Tensor) -> Tensor | None:
    """Mean absolute scaled error (Hyndman and Koehler 2006): the mean absolute error over that of a seasonal naive forecast.

    Args:
        error: (batch, horizon, variables), scaled as `scale` is.
        scale: (batch, variables), the naive forecast's mean absolute error on the training part.

    Returns:
        the mean over those windows and variables that have a scale; None where none has: a series that repeats itself exactly.
    """
    measured = scale > 0
    ratio = error.abs().mean(1) / scale
    if measured.all():
        return ratio.mean()
    return ratio[measured].mean() if measured.any() else None


def smape(truth: Tensor, forecast: Tensor) -> Tensor:
    """Symmetric mean absolute percentage error, 0 to 200 (Makridakis 1993), of values in their own units."""
    return (200 * (truth - forecast).abs() / (truth.abs() + forecast.abs()).clamp_min(1e-9)).mean()


def naive_forecasts(describe: Mapping[str, Any]) -> dict[str, SeasonalNaive]:
    """What every table shows beside a model: the last value again, and where the look-back holds one the last season again."""
    lookback, horizon, period = (describe.get(name, 1) for name in ("lookback", "horizon", "period"))
    found = {"repeat_last": SeasonalNaive(lookback, horizon)}
    if 1 < period <= lookback:
        found["seasonal_naive"] = SeasonalNaive(lookback, horizon, period)
    return found


class Seen:
    """What a test has seen, for its pictures."""

    def __init__(self) -> None:
        self.places: list[int] = []
        self.windows: list[float] = []
        self._steps: list[np.ndarray] = []
        self._inside: list[np.ndarray] = []
        self._sample: list[np.ndarray] = []

    def add(self, index: Tensor, error: Tensor, said: Tensor, inside: Tensor | None) -> None:
        """A batch: (batch,) places, (batch, horizon, variables) errors, forecasts, and 1 where the interval held."""
        self.places += index.tolist()
        self.windows += error.square().flatten(1).mean(1).nan_to_num(nan=float("inf")).tolist()
        self._steps.append(np.stack([error.square().mean((0, 2)).cpu(), error.abs().mean((0, 2)).cpu()]) * len(error))
        if inside is not None:
            self._inside.append(inside.mean((0, 2)).cpu().numpy() * len(error))
        if len(self._sample) < 50:
            self._sample.append(np.stack([said[:1].cpu().numpy().ravel(), error[:1].cpu().numpy().ravel()]))

    def chosen(self) -> tuple[np.ndarray, list[str]]:
        """Places of two best, two median and two worst windows, and their titles."""
        order = np.argsort(self.windows, kind="stable")
        ranks = sorted({rank for each in (0, len(order) // 2, len(order) - 2) for rank in (each, each + 1)})
        ranks = [rank for rank in ranks if 0 <= rank < len(order)]
        chosen = [order[rank] for rank in ranks]
        titles = [f"rank {rank + 1:,}, MSE {self.windows[at]:.3g}" for rank, at in zip(ranks, chosen, strict=True)]
        return np.array([self.places[at] for at in chosen]), titles

    def by_step(self) -> np.ndarray:
        """Mean squared and mean absolute errors of each step of the horizon, (2, horizon)."""
        return np.sum(self._steps, 0) / len(self.windows)

    def shares(self) -> np.ndarray | None:
        """The share of each step's truth that the interval held, (horizon,)."""
        return np.sum(self._inside, 0) / len(self.windows) if self._inside else None

    def sample(self) -> np.ndarray:
        """Forecasts and errors of some windows, (2, values)."""
        return np.concatenate(self._sample, 1)
