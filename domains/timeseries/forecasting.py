"""Forecasting: losses, metrics in scaled and original units beside those of naive forecasts, intervals, pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...core.errors import UserError, check_choice, say_once
from ...core.ranges import Fraction, Weight, checked
from ..task import Task
from .conformal import Conformal, crps, pinball
from .models.cmamba import channel_mixup
from .models.naive import SeasonalNaive
from .pictures import draw_errors, draw_forecasts, draw_order

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOSSES = ("mse", "mae", "huber", "quantile")
CALIBRATION = 4_000_000  # errors that intervals are made from at most: windows times horizon times variables


class Forecasting(Task):
    """The coming values of some series from their last ones.

    Batches are data.timeseries.windows.Window; the model returns (batch, horizon, variables), of which the first `targets` count.
    A test says, beside the model's errors, those of repeating the last value and the last season; the intervals come from the
    errors on the validation part, as the weights are then, and their coverage is measured.

    Args:
        model: the network.
        describe: of the data: "lookback", "horizon", "targets", "period", "scaler", "variable_names", "known_columns".
        loss: what is minimised: "mse", "mae", "huber" (of width 1, in scaled units) or "quantile".
        quantile: which one, for the loss of that name: the forecast is then above the truth this often.
        level: share of the truth that intervals shall hold.
        channel_mixup: deviation of the share of another variable that is added to each in training (CMamba: 1); 0: none.
        auxiliary: weight of what the model itself wants added to the loss.
    """

    monitor: ClassVar[tuple[str, str]] = ("val/loss", "min")

    @checked(group="task")
    def __init__(
        self,
        model: nn.Module,
        describe: Mapping[str, Any],
        loss: Literal["mse", "mae", "huber", "quantile"] = "mse",
        quantile: Fraction = 0.5,
        level: Fraction = 0.9,
        channel_mixup: Weight = 0.0,
        auxiliary: Weight = 1.0,
    ):
        super().__init__(model, describe, auxiliary)
        check_choice("task.loss", loss, LOSSES, "loss")
        lacking = [name for name in ("lookback", "horizon", "scaler") if name not in self.describe]
        if lacking:
            raise UserError(
                "these data are no series to forecast", given=self.describe.get("name"), do="choose another task="
            )
        self.loss, self.quantile, self.level, self.channel_mixup = loss, quantile, level, channel_mixup
        self.targets = self.describe.get("targets") or self.describe["variables"]
        self.scaler = self.describe["scaler"]
        self.conformal: Conformal | None = None
        self._said = _Seen()
        self._naive = _naive_forecasts(self.describe)
        known = self.describe.get("known_columns")
        if known and not getattr(model, "reads_marks", False):
            say_once(
                f"this model does not read the columns {', '.join(known)}: model=mambaformer does", "known columns"
            )

    def inputs(self, batch: Any) -> tuple[Tensor, Tensor | None]:
        """The past, (batch, look-back, variables), and what is known of all steps, (batch, look-back + horizon, features)."""
        past, _, marks, *_ = batch
        return past, marks if marks.shape[-1] else None

    def step(self, batch: Any, stage: str) -> tuple[Tensor, dict[str, Tensor]]:
        past, future, *_ = batch
        if stage == "train" and self.channel_mixup:
            past, future = channel_mixup(past, future, self.channel_mixup)
        marks = self.inputs(batch)[1]
        said = self._counted(self.model(past, marks))
        error = self._counted(future) - said
        by_window = self._losses(error).flatten(1).mean(1)
        if stage == "train":
            if hasattr(self.model, "observe"):
                self.model.observe(by_window)
            return by_window.mean(), {"mae": error.detach().abs().mean()}
        metrics = {"mse": error.square().mean(), "mae": error.abs().mean()}
        if stage == "test":
            metrics |= self._tested(batch, said.detach(), error.detach())
        return by_window.mean(), metrics

    def on_test_start(self) -> None:
        self._said = _Seen()
        self.conformal = calibrate(self, self.trainer.datamodule)

    def pictures(self, stage: str, batch: Any = None) -> Mapping[str, Figure | str]:
        names = self.describe.get("variable_names")
        if stage == "train":
            chosen = batch._replace(**{name: each[:6].cpu() for name, each in batch._asdict().items()})
            return {"first_batch": draw_forecasts("First training batch", *self._drawable(chosen), names=names)}
        found: dict[str, Figure | str] = {}
        if stage != "test" or not self._said.windows:
            return found
        places, titles = self._said.chosen()
        batch = self.trainer.datamodule.load_batch("test", 0, places)
        weight = next(self.model.parameters(), torch.zeros((), device=self.device))
        with torch.no_grad():
            said = self._counted(self.model(*(None if x is None else x.to(weight) for x in self.inputs(batch)))).cpu()
        width = None if self.conformal is None else self.conformal.width(self.level)
        heading = f"Of {len(self._said.windows):,} test windows the best, the median and the worst, scaled"
        past, future = self._drawable(batch)
        found["forecasts"] = draw_forecasts(heading, past, future, said, width, titles, names)
        found["errors"] = draw_errors(self._said.by_step(), self._said.shares(), self._said.sample())
        if hasattr(self.model, "variable_order"):
            found["variable_order"] = draw_order(self.model.variable_order(), self.model.encoder, names)
        return found

    def _drawable(self, batch: Any) -> tuple[Tensor, Tensor]:
        return self._counted(batch.past.float()), self._counted(batch.future.float())

    def _counted(self, values: Tensor) -> Tensor:
        return values[..., : self.targets].float()

    def _losses(self, error: Tensor) -> Tensor:
        """Elementwise; error: truth minus forecast."""
        if self.loss == "mse":
            return error.square()
        if self.loss == "mae":
            return error.abs()
        if self.loss == "huber":
            return F.huber_loss(error, torch.zeros_like(error), reduction="none")
        return pinball(error, torch.zeros_like(error), self.quantile)

    def _tested(self, batch: Any, said: Tensor, error: Tensor) -> dict[str, Tensor]:
        past, future, _, series, index = batch
        metrics = {}
        for name, naive in self._naive.items():
            naive_error = self._counted(future) - self._counted(naive(past))
            metrics |= {f"mse_{name}": naive_error.square().mean(), f"mae_{name}": naive_error.abs().mean()}
        numbers = series.cpu().numpy()
        some = slice(self.targets)
        scale = torch.from_numpy(self.scaler.seasonal_error[numbers, some]).to(error)
        # a series that repeats itself exactly has no scale to measure by
        ratio = error.abs().mean(1) / scale
        if (measured := scale > 0).all():
            metrics["mase"] = ratio.mean()
        elif measured.any():
            metrics["mase"] = ratio[measured].mean()
        mean, deviation = (
            torch.from_numpy(each[numbers, some])[:, None].to(error.device)
            for each in (self.scaler.mean, self.scaler.deviation)
        )
        truth, forecast = (self._counted(future) * deviation + mean), said * deviation + mean
        metrics["mae_units"] = (truth - forecast).abs().mean()
        metrics["smape"] = (200 * (truth - forecast).abs() / (truth.abs() + forecast.abs()).clamp_min(1e-9)).mean()
        inside = None
        if self.conformal is not None:
            width = self.conformal.width(self.level).to(error)
            inside = (error.abs() <= width).float()
            metrics |= {"coverage": inside.mean(), "width": 2 * width.mean()}
            metrics["crps"] = crps(error, self.conformal.quantiles().to(error)).mean()
        self._said.add(index, error, said, inside)
        return metrics


@torch.no_grad()
def forecast(task: Forecasting, past: Tensor, marks: Tensor, horizon: int) -> Tensor:
    """The coming steps, scaled; beyond the model's own horizon it goes on from what it has said.

    Args:
        past: (batch, look-back, variables).
        marks: (batch, steps, features), of the look-back and of all steps of as many whole horizons as are needed.
        horizon: steps wanted.

    Returns:
        (batch, horizon, variables) float32 on the CPU.
    """
    own, lookback, said = task.describe["horizon"], past.shape[1], []
    weight = next(
        task.model.parameters(), torch.zeros((), device=task.device)
    )  # what repeats the last value learns nothing
    past, marks = past.to(weight), marks.to(weight)
    for start in range(0, horizon, own):
        here = marks[:, start : start + lookback + own]
        said.append(task.model(past, here if here.shape[-1] else None).float())
        past = torch.cat([past, said[-1].to(past)], 1)[:, -lookback:]
    return torch.cat(said, 1)[:, :horizon].cpu()


def calibrate(task: Forecasting, data: Any, horizon: int | None = None) -> Conformal | None:
    """The errors of a task's model on the validation part of its data; None where no window of it has so many steps.

    Args:
        horizon: steps of a forecast; None: the model's.
    """
    data.setup()
    own = task.describe["horizon"]
    horizon = own if horizon is None else horizon
    starts = data.splits["val"] if horizon == own else data.starts("val", -(-horizon // own) * own)
    if not len(starts):
        return None
    most = max(CALIBRATION // (horizon * task.targets), 2)
    places = np.unique(np.linspace(0, len(starts) - 1, min(len(starts), most)).round().astype(np.int64))
    errors, size, training = [], data.loading.batch_size, task.model.training
    task.model.eval()
    for first in range(0, len(places), size):
        batch = data.window(starts[places[first : first + size]], horizon=-(-horizon // own) * own)
        said = forecast(task, batch.past, batch.marks, horizon)
        errors.append((batch.future[:, :horizon] - said)[..., : task.targets])
    task.model.train(training)
    return Conformal.of(torch.cat(errors))


def _naive_forecasts(describe: Mapping[str, Any]) -> dict[str, SeasonalNaive]:
    lookback, horizon, period = (describe.get(name, 1) for name in ("lookback", "horizon", "period"))
    found = {"repeat_last": SeasonalNaive(lookback, horizon)}
    if 1 < period <= lookback:
        found["seasonal_naive"] = SeasonalNaive(lookback, horizon, period)
    return found


class _Seen:
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
