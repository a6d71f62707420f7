"""Two chaotic systems, integrated here: Mackey and Glass's delayed feedback, and Lorenz's convection; nothing to download."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...core.ranges import Fraction, Size, checked
from ..loading import Loading
from .sources import CHAOTIC
from .windows import Series, SeriesData, shares

WARM_UP = 500  # steps that are integrated and not shown


class Chaotic(SeriesData):
    """Mackey-Glass with delay 17, and the three coordinates of Lorenz's system, as four variables of one series.

    Args:
        lookback, horizon, step, windows, scale, loading: see SeriesData.
        steps: of the series: a unit of time of the first system, 0.05 of the second.
        val_fraction, test_fraction: share of the steps, at the end.
        name: the data set's name in results.
    """

    source = CHAOTIC
    variables = ("mackey_glass", "lorenz_x", "lorenz_y", "lorenz_z")
    period = 50  # about what Mackey-Glass's waves take

    @checked(group="data")
    def __init__(
        self,
        loading: Loading = Loading(batch_size=32),
        lookback: Size = 96,
        horizon: Size = 24,
        steps: Size = 5_000,
        val_fraction: Fraction = 0.1,
        test_fraction: Fraction = 0.2,
        step: Size = 1,
        windows: Size | None = None,
        scale: bool = True,
        name: str = "chaotic",
    ):
        super().__init__(name, loading, lookback, horizon, step, windows, False, scale)
        self.steps, self.fractions = steps, (val_fraction, test_fraction)

    def load(self) -> list[Series]:
        """Integrate the systems; see `SeriesData.load`."""
        columns = [mackey_glass(self.steps), *lorenz(self.steps).T]
        return [Series("chaotic", np.stack(columns, 1), None, shares(self.steps, *self.fractions))]


def mackey_glass(steps: int, delay: int = 17) -> np.ndarray:
    """x' = 0.2 x(t - delay) / (1 + x(t - delay)^10) - 0.1 x, a value a unit of time, (steps,) float64 (Mackey and Glass 1977).

    Integrated by Runge and Kutta's method at a tenth of the unit, the delayed value interpolated between two of its steps.
    """
    fine = 10
    size, late = 1.0 / fine, delay * fine
    x = [1.2] * (late + 1)

    def slope(now: float, then: float) -> float:
        square = then * then
        eighth = square * square * square * square
        return 0.2 * then / (1 + eighth * square) - 0.1 * now

    for place in range((steps + WARM_UP) * fine):
        now, before, after = x[-1], x[place], x[place + 1]
        middle = (before + after) / 2
        first = slope(now, before)
        second = slope(now + size / 2 * first, middle)
        third = slope(now + size / 2 * second, middle)
        fourth = slope(now + size * third, after)
        x.append(now + size / 6 * (first + 2 * second + 2 * third + fourth))
    return np.array(x[late + 1 + WARM_UP * fine :: fine][:steps])


def lorenz(steps: int) -> np.ndarray:
    """Lorenz's system at sigma 10, rho 28, beta 8/3, every 0.05 units of time, (steps, 3) float64 (Lorenz 1963)."""
    fine, size = 5, 0.01
    return np.array(list(_lorenz((steps + WARM_UP) * fine, size))[WARM_UP * fine :: fine])


def _lorenz(steps: int, size: float) -> Iterator[tuple[float, float, float]]:
    def slope(x: float, y: float, z: float) -> tuple[float, float, float]:
        return 10.0 * (y - x), x * (28.0 - z) - y, x * y - 8.0 / 3.0 * z

    point = (1.0, 1.0, 1.0)
    for _ in range(steps):
        first = slope(*point)
        second = slope(*(p + size / 2 * s for p, s in zip(point, first, strict=True)))
        third = slope(*(p + size / 2 * s for p, s in zip(point, second, strict=True)))
        fourth = slope(*(p + size * s for p, s in zip(point, third, strict=True)))
        point = tuple(
            p + size / 6 * (a + 2 * b + 2 * c + d)
            for p, a, b, c, d in zip(point, first, second, third, fourth, strict=True)
        )
        yield point
