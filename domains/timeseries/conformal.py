"""Intervals around forecasts from errors that were seen before: split conformal prediction, and its adaptive form.

Split: Lei et al. 2018 (arXiv 1604.04173), around quantiles Romano et al. 2019 (CQR, arXiv 1905.03222). Adaptive: Gibbs and Candès
2021 (arXiv 2106.00170).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

QUANTILES = tuple(number / 20 for number in range(1, 20))
SPEED = 0.005  # of adaptation, that of the paper's experiments
# A loop that hears of its misses so many windows late swings where speed times delay nears pi / 2.
LATE = 0.5


@dataclass(frozen=True)
class Conformal:
    """What was seen of a model's errors, for every step of the horizon and every variable.

    Args:
        errors: (windows, horizon, variables): truth minus forecast of windows that were not trained on, sorted by size along the
            first axis.
        scores: the same of how far the truth lay outside of what was forecast (`outside`), sorted likewise.
    """

    errors: Tensor
    scores: Tensor

    @classmethod
    def of(cls, errors: Tensor, scores: Tensor | None = None) -> Conformal:
        """From errors in any order; without scores, of a forecast without quantiles, they are the errors' sizes."""
        return cls(errors.sort(0).values, (errors.abs() if scores is None else scores).sort(0).values)

    def width(self, level: float) -> Tensor:
        """How far an interval that shall hold the truth with this probability reaches to either side, (horizon, variables).

        It is the ceil((n + 1) level)-th smallest of the n scores: where a coming window is exchangeable with those seen, the
        interval holds at least `level` of the time. With too few scores it is the largest that was seen.
        """
        windows = len(self.scores)
        return self.scores[min(math.ceil((windows + 1) * level), windows) - 1]

    def quantiles(self) -> Tensor:
        """The errors' quantiles at `QUANTILES`, (quantiles, horizon, variables); to be added to a forecast."""
        place = torch.tensor(QUANTILES, dtype=torch.float64) * (len(self.errors) - 1)
        return self.errors[place.round().long()]


class Adaptive:
    """Adaptive conformal inference over the windows of one series, in the order of time, for each step and variable by itself.

    An interval that has missed too often widens, one that has held too often narrows: its level moves by `SPEED` times the
    difference between what was seen and what is wanted. What is known when a forecast is made is used and nothing else: whether
    step h of a window was held is learnt h steps after its last known value. Over a long time the share held nears the level
    whatever the data do (proposition 4.1 there); widths never exceed the largest score of the calibration.

    Args:
        known: what was seen before.
        level: share of the truth that intervals shall hold.
    """

    def __init__(self, known: Conformal, level: float):
        self.scores, self.level = known.scores.numpy(), level
        _, horizon, variables = self.scores.shape
        self.miss = np.full((horizon, variables), 1 - level)  # alpha, the share that the next interval aims to miss
        self._heard = np.zeros(horizon, np.int64)  # of how many windows each step is known
        self._windows = 0
        self._times, self._missed = np.zeros(64, np.int64), np.zeros((64, horizon, variables), bool)

    def width(self, time: int) -> Tensor:
        """How far the interval of the window whose first coming step is this one reaches to either side, (horizon, variables)."""
        self._hear(time)
        windows = len(self.scores)
        rank = np.ceil((windows + 1) * (1 - self.miss)).clip(1, windows).astype(np.int64) - 1
        return torch.from_numpy(np.take_along_axis(self.scores, rank[None], 0)[0])

    def add(self, time: int, missed: Tensor) -> None:
        """What became of a window, (horizon, variables) bool; its steps count when they have come to pass."""
        if self._windows == len(self._times):
            self._times = np.concatenate([self._times, np.zeros_like(self._times)])
            self._missed = np.concatenate([self._missed, np.zeros_like(self._missed)])
        self._times[self._windows], self._missed[self._windows] = time, missed.numpy()
        self._windows += 1

    def follow(self, times: Sequence[int], scores: Tensor) -> Tensor:
        """The widths of windows one after the other, each as it was known then.

        Args:
            times: (windows,) of their first coming steps, rising.
            scores: (windows, horizon, variables), of `outside`.
        """
        found = []
        for time, score in zip(times, scores, strict=True):
            found.append(self.width(int(time)))
            self.add(int(time), score > found[-1])
        return torch.stack(found)

    def _hear(self, time: int) -> None:
        """Learn of all steps before this one."""
        steps = np.arange(len(self._heard))
        times = self._times[: self._windows]
        known = np.searchsorted(times, time - 1 - steps, "right")
        gap = times[-1] - times[-2] if len(times) > 1 else 1
        speed = np.minimum(SPEED, LATE / np.ceil((steps + 1) / gap))[:, None]
        while (some := np.flatnonzero(known > self._heard)).size:
            missed = self._missed[self._heard[some], some]
            self.miss[some] += speed[some] * (1 - self.level - missed)
            self._heard[some] += 1
        self.miss.clip(0, 1, out=self.miss)


def outside(truth: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """How far the truth lies outside of a forecast's range, below 0 within; the size of the error where both ends are one."""
    return torch.maximum(low - truth, truth - high)


def pinball(truth: Tensor, quantile: Tensor, level: float | Tensor) -> Tensor:
    """The loss that a quantile of this level makes smallest (Koenker and Bassett 1978), elementwise."""
    above = truth - quantile
    return torch.maximum(level * above, (level - 1) * above)


def crps(error: Tensor, quantiles: Tensor, levels: Sequence[float] = QUANTILES) -> Tensor:
    """The continuous ranked probability score of a forecast with these quantiles about it: twice the mean pinball loss.

    Args:
        error: (batch, horizon, variables), truth minus forecast.
        quantiles: of the errors, (quantiles, [batch,] horizon, variables), at `levels`.

    Returns:
        (batch, horizon, variables).
    """
    losses = [pinball(error, each, level) for level, each in zip(levels, quantiles, strict=True)]
    return 2 * torch.stack(losses).mean(0)
