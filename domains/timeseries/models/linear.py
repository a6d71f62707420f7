"""DLinear and NLinear (Are Transformers effective for time series forecasting?, arXiv 2205.13504): the lines to be beaten.

Parameter names are those of the published code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor, nn

from ....core.errors import check_choice
from ....core.ranges import Size, checked
from .decomposition import decompose
from .forecaster import Forecaster, described
from .patches import by_variable

FORMS = ("dlinear", "nlinear")


class DLinear(Forecaster):
    """The sum of two linear layers over time: of a series' moving average, and of the rest. Marks are not read.

    Args:
        lookback, horizon: steps seen and answered.
        variables: series of a window, which only individual layers need.
        individual: layers of its own for each variable.
        kernel_size: steps of the moving average, odd.
    """

    @checked
    def __init__(
        self,
        lookback: Size,
        horizon: Size,
        variables: Size | None = None,
        individual: bool = False,
        kernel_size: Size = 25,
    ):
        super().__init__(lookback, horizon, variables if individual else None)
        self.kernel_size = kernel_size
        self.Linear_Seasonal, self.Linear_Trend = (lines(lookback, horizon, self.variables) for _ in range(2))

    def forward(self, x: Tensor, marks: Tensor | None = None) -> Tensor:
        """As of every Forecaster."""
        self.check(x, marks)
        rest, trend = (part.transpose(1, 2) for part in decompose(x, self.kernel_size))
        return (by_variable(self.Linear_Seasonal, rest) + by_variable(self.Linear_Trend, trend)).transpose(1, 2)


class NLinear(Forecaster):
    """A linear layer over time, of a series without its last value, which is added to the forecast. Marks are not read.

    Args: as of DLinear.
    """

    @checked
    def __init__(self, lookback: Size, horizon: Size, variables: Size | None = None, individual: bool = False):
        super().__init__(lookback, horizon, variables if individual else None)
        self.Linear = lines(lookback, horizon, self.variables)

    def forward(self, x: Tensor, marks: Tensor | None = None) -> Tensor:
        """As of every Forecaster."""
        self.check(x, marks)
        last = x[:, -1:]
        return by_variable(self.Linear, (x - last).transpose(1, 2)).transpose(1, 2) + last


def lines(lookback: int, horizon: int, variables: int | None) -> nn.Module:
    """A linear layer from look-back to horizon, or one for each of so many variables."""
    if variables is None:
        return nn.Linear(lookback, horizon)
    return nn.ModuleList(nn.Linear(lookback, horizon) for _ in range(variables))


@checked(group="model")
def build(
    describe: Mapping,
    form: Literal["dlinear", "nlinear"] = "dlinear",
    individual: bool = False,
    kernel_size: Size = 25,
) -> Forecaster:
    """A DLinear or NLinear for a data set.

    Args:
        describe: lookback, horizon, variables.
        form, individual, kernel_size: see DLinear; the last is DLinear's alone.
    """
    check_choice("model.form", form, FORMS, "form")
    given = described(describe, "variables")
    if form == "nlinear":
        return NLinear(**given, individual=individual)
    return DLinear(**given, individual=individual, kernel_size=kernel_size)
