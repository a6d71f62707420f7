"""Forecasts without parameters, which every table shows: the last value again, and the last season again.

On the Exchange set the former is better than most published models (MSE .081, .167, .305, .823 for 96 to 720 days,
LTSF-Linear's benchmark).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from ....core.errors import UserError, check_choice
from ....core.ranges import Size, checked
from .forecaster import Forecaster, described

FORMS = ("repeat_last", "seasonal")


class SeasonalNaive(Forecaster):
    """Each coming value is the one a whole number of seasons before it that is still known. Marks are not read.

    Args:
        lookback, horizon: steps seen and answered.
        period: steps of a season; 1 repeats the last value.
    """

    @checked
    def __init__(self, lookback: Size, horizon: Size, period: Size = 1):
        super().__init__(lookback, horizon)
        if period > lookback:
            raise UserError(
                "a season must fit into the look-back", given=f"period={period}, look-back {lookback}",
                allowed=f"1 to {lookback}",
            )  # fmt: skip
        self.period = period

    def forward(self, x: Tensor, marks: Tensor | None = None) -> Tensor:
        """As of every Forecaster."""
        self.check(x, marks)
        step = torch.arange(self.horizon, device=x.device) % self.period
        return x[:, self.lookback - self.period + step]


@checked(group="model")
def build(
    describe: Mapping, form: Literal["repeat_last", "seasonal"] = "repeat_last", period: Size | None = None
) -> SeasonalNaive:
    """A forecast without parameters for a data set.

    Args:
        describe: lookback, horizon, and for "seasonal" period, the steps of a season, unless it is given here.

    Raises:
        UserError: a season of a length that nobody says.
    """
    check_choice("model.form", form, FORMS, "form")
    if form == "repeat_last":
        return SeasonalNaive(**described(describe), period=1)
    period = describe.get("period") if period is None else period
    if period is None:
        raise UserError(
            "a seasonal forecast needs a season", given="no period", allowed="steps, 24 for a day of hours",
            do="model.period=24",
        )  # fmt: skip
    return SeasonalNaive(**described(describe), period=period)
