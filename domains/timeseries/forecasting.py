"""Forecasting: losses, metrics in scaled and original units beside those of naive forecasts, intervals, pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...core.errors import UserError, check_choice, say_once
from ...core.ranges import Fraction, Weight, checked
from ..task import Task
from .conformal import Adaptive, Conformal, crps, outside, pinball
from .metrics import Seen, mase, naive_forecasts, smape
from .models.cmamba import channel_mixup
from .pictures import draw_errors, draw_forecasts, draw_order

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOSSES = ("mse", "mae", "huber", "quantile", "quantiles")
LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
CALIBRATION = 4_000_000  # errors that intervals are made from at most: windows times horizon times variables
FOLLOWED = 500  # windows of the test part that intervals behind the end of the data have learnt from at most


class Said(NamedTuple):
    """Forecasts.

    Args:
        middle: (batch, horizon, targets), the median where there are quantiles.
        low, high: the same: where the truth is said to lie with the task's level; the middle of a forecast without quantiles.
        quantiles: (quantiles, batch, horizon, targets); None: the model says none.
    """

    middle: Tensor
    low: Tensor
    high: Tensor
    quantiles: Tensor | None


class Forecasting(Task):
    """The coming values of some series from their last ones.

    Batches are data.timeseries.windows.Window; the model returns (batch, horizon, variables), of which the first `targets` count;
    with the loss "quantiles" it has that many steps for each quantile, one quantile behind the other. A test says, beside the
    model's errors, those of repeating the last value and the last season. The intervals come from the errors on the validation
    part, as the weights are then, and adapt to what is seen of the test part on the way (`Adaptive`); their coverage and width are
    measured, beside those of intervals that do not adapt (coverage_split, width_split).

    Args:
        model: the network.
        describe: of the data: "lookback", "horizon", "targets", "period", "scaler", "variable_names", "known_columns".
        loss: what is minimised: "mse", "mae", "huber" (of width 1, in scaled units), "quantile" or "quantiles".
        quantile: which one, for the loss of that name: the forecast is then above the truth this often.
        quantiles: which ones, rising, for the loss of that name: the mean of their losses is minimised, the forecast is the one
            nearest to the median.
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
        loss: Literal["mse", "mae", "huber", "quantile", "quantiles"] = "mse",
        quantile: Fraction = 0.5,
        quantiles: Sequence[float] = LEVELS,
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
        self.quantiles = check_quantiles(quantiles) if loss == "quantiles" else None
        self.targets = self.describe.get("targets") or self.describe["variables"]
        self.scaler = self.describe["scaler"]
        self.conformal: Conformal | None = None
        self._adaptive: tuple[int, Adaptive] | None = None
        self._said = Seen()
        self._naive = naive_forecasts(self.describe)
        known = self.describe.get("known_columns")
        if known and not getattr(model, "reads_marks", False):
            say_once(
                f"this model does not read the columns {', '.join(known)}: model=mambaformer does", "known columns"
            )
        if self.quantiles is not None and getattr(model, "future_marks", False):
            raise UserError(
                "this model reads the calendar of each step that it answers, and answers no quantiles",
                given="task.loss=quantiles", do="another model=",
            )  # fmt: skip

    @classmethod
    def asks(cls, describe: Mapping[str, Any], settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """As many steps for each quantile; see Task."""
        if settings.get("loss") != "quantiles" or "horizon" not in describe:
            return {}
        return {"horizon": describe["horizon"] * len(check_quantiles(settings.get("quantiles", LEVELS)))}

    def inputs(self, batch: Any) -> tuple[Tensor, Tensor | None]:
        """The past, (batch, look-back, variables), and what is known of all steps, (batch, look-back + horizon, features)."""
        past, _, marks, *_ = batch
        if self.quantiles is not None:
            marks = marks[:, : past.shape[1]]
        return past, marks if marks.shape[-1] else None

    def said(self, answer: Tensor) -> Said:
        """What a model's answer says of the targets; quantiles that cross are put in order (Chernozhukov et al. 2010)."""
        answer = self._counted(answer)
        if self.quantiles is None:
            return Said(answer, answer, answer, None)
        ordered = answer.unflatten(1, (len(self.quantiles), -1)).transpose(0, 1).sort(0).values
        low, middle, high = (
            ordered[np.abs(np.array(self.quantiles) - place).argmin()]
            for place in ((1 - self.level) / 2, 0.5, (1 + self.level) / 2)
        )
        return Said(middle, low, high, ordered)

    def step(self, batch: Any, stage: str) -> tuple[Tensor, dict[str, Tensor]]:
        past, future, *_ = batch
        if stage == "train" and self.channel_mixup:
            past, future = channel_mixup(past, future, self.channel_mixup)
        answer, truth = self.model(past, self.inputs(batch)[1]), self._counted(future)
        said = self.said(answer)
        error = truth - said.middle
        by_window = self._losses(answer, truth).flatten(1).mean(1)
        if stage == "train":
            if hasattr(self.model, "observe"):
                self.model.observe(by_window)
            return by_window.mean(), {"mae": error.detach().abs().mean()}
        metrics = {"mse": error.square().mean(), "mae": error.abs().mean()}
        if stage == "test":
            metrics |= self._tested(batch, Said(*(None if each is None else each.detach() for each in said)))
        return by_window.mean(), metrics

    def on_test_start(self) -> None:
        self._said, self._adaptive = Seen(), None
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
            said = self.said(
                self.model(*(None if x is None else x.to(weight) for x in self.inputs(batch))).float().cpu()
            )
        width = None if self.conformal is None else self.conformal.width(self.level)
        heading = f"Of {len(self._said.windows):,} test windows the best, the median and the worst, scaled"
        heading += "" if width is None else f"; {self.level:.0%} intervals from the validation part alone"
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

    def _losses(self, answer: Tensor, truth: Tensor) -> Tensor:
        """Elementwise, (batch, ..., horizon, targets)."""
        if self.loss == "quantiles":
            levels = torch.tensor(self.quantiles, device=truth.device)[:, None, None]
            return pinball(truth[:, None], self._counted(answer).unflatten(1, (len(self.quantiles), -1)), levels)
        error = truth - self._counted(answer)
        if self.loss == "mse":
            return error.square()
        if self.loss == "mae":
            return error.abs()
        if self.loss == "huber":
            return F.huber_loss(error, torch.zeros_like(error), reduction="none")
        return pinball(error, torch.zeros_like(error), self.quantile)

    def _tested(self, batch: Any, said: Said) -> dict[str, Tensor]:
        past, future, _, series, index = batch
        truth, metrics = self._counted(future), {}
        error = truth - said.middle
        for name, naive in self._naive.items():
            naive_error = truth - self._counted(naive(past))
            metrics |= {f"mse_{name}": naive_error.square().mean(), f"mae_{name}": naive_error.abs().mean()}
        numbers, some = series.cpu().numpy(), slice(self.targets)
        scaled = mase(error, torch.from_numpy(self.scaler.seasonal_error[numbers, some]).to(error))
        metrics |= {} if scaled is None else {"mase": scaled}
        mean, deviation = (
            torch.from_numpy(each[numbers, some])[:, None].to(error.device)
            for each in (self.scaler.mean, self.scaler.deviation)
        )
        in_units, forecast = (truth * deviation + mean), said.middle * deviation + mean
        metrics |= {"mae_units": (in_units - forecast).abs().mean(), "smape": smape(in_units, forecast)}
        inside = None
        if said.quantiles is not None:
            metrics["crps"] = crps(error, said.quantiles - said.middle, self.quantiles).mean()
        if self.conformal is not None:
            scores = outside(truth, said.low, said.high)
            widths = self._widths(batch, scores.cpu()).to(error)
            between = (said.high - said.low).mean()
            inside = (scores <= widths).float()
            metrics |= {"coverage": inside.mean(), "width": between + 2 * widths.mean()}
            width = self.conformal.width(self.level).to(error)
            metrics |= {"coverage_split": (scores <= width).float().mean(), "width_split": between + 2 * width.mean()}
            if said.quantiles is None:
                metrics["crps"] = crps(error, self.conformal.quantiles().to(error)).mean()
        self._said.add(index, error, said.middle, inside)
        return metrics

    def _widths(self, batch: Any, scores: Tensor) -> Tensor:
        """How far each window's interval reaches, (batch, horizon, targets), by what was known of the windows before it."""
        data = getattr(self._trainer, "datamodule", None)
        starts = batch.index.cpu().numpy()
        starts = starts if data is None else data.splits["test"][starts]
        found = []
        for number, start, score in zip(batch.series.tolist(), starts, scores, strict=True):
            if self._adaptive is None or self._adaptive[0] != number:
                self._adaptive = number, Adaptive(self.conformal, self.level)
            found.append(self._adaptive[1].follow([int(start)], score[None]))
        return torch.cat(found)


def check_quantiles(quantiles: Sequence[float]) -> list[float]:
    """Quantiles that a model is to answer.

    Raises:
        UserError: none, not rising, or not above 0 and below 1.
    """
    found = list(quantiles)
    if not found or found != sorted(set(found)) or not 0 < found[0] <= found[-1] < 1:
        raise UserError("quantiles rise between 0 and 1", given=f"task.quantiles={found}", allowed="like [0.1,0.5,0.9]")
    return found


@torch.no_grad()
def forecast(task: Forecasting, past: Tensor, marks: Tensor, horizon: int) -> Said:
    """So many coming steps; beyond the model's horizon it goes on from what it has said, of quantiles the median.

    Args:
        past: (batch, look-back, variables), scaled.
        marks: (batch, look-back + steps, features), with steps for all windows of the model's horizon.

    Returns:
        on the CPU.
    """
    own, lookback, parts = task.describe["horizon"], past.shape[1], []
    weight = next(
        task.model.parameters(), torch.zeros((), device=task.device)
    )  # what repeats the last value learns nothing
    past, marks = past.to(weight), marks.to(weight)
    for start in range(0, horizon, own):
        here = marks[:, start : start + lookback + (own if task.quantiles is None else 0)]
        answer = task.model(past, here if here.shape[-1] else None).float()
        parts.append(task.said(answer))
        goes_on = answer if task.quantiles is None else _median_of_all(task, answer)
        past = torch.cat([past, goes_on.to(past)], 1)[:, -lookback:]
    whole = (
        None if each[0] is None else torch.cat(each, -2)[..., :horizon, :].cpu() for each in zip(*parts, strict=True)
    )
    return Said(*whole)


def _median_of_all(task: Forecasting, answer: Tensor) -> Tensor:
    """The median of all variables, those too that are not to be forecast, (batch, horizon, variables)."""
    ordered = answer.unflatten(1, (len(task.quantiles), -1)).sort(1).values
    return ordered[:, np.abs(np.array(task.quantiles) - 0.5).argmin()]


def calibrate(task: Forecasting, data: Any, horizon: int | None = None) -> Conformal | None:
    """The errors of a task's model on the validation part of its data; None where no window of it has so many steps.

    Args:
        horizon: steps of a forecast; None: the model's.
    """
    horizon = task.describe["horizon"] if horizon is None else horizon
    starts = _starts(task, data, "val", horizon)
    if not len(starts):
        return None
    most = max(CALIBRATION // (horizon * task.targets), 2)
    errors, scores = zip(*_errors(task, data, _some(starts, most), horizon), strict=True)
    return Conformal.of(torch.cat(errors), torch.cat(scores))


def adapted(task: Forecasting, data: Any, conformal: Conformal, horizon: int, level: float) -> dict[int, Adaptive]:
    """Intervals behind the ends of series, by the series' place: they have learnt from the test part, which is known by then."""
    starts, found = _some(_starts(task, data, "test", horizon), FOLLOWED), {}
    ends = np.cumsum([len(each.values) for each in data.series])
    number_of = np.searchsorted(ends, starts, "right")
    for number in np.unique(number_of):
        mine = starts[number_of == number]
        scores = torch.cat([each for _, each in _errors(task, data, mine, horizon)])
        found[int(number)] = Adaptive(conformal, level)
        found[int(number)].follow(mine + data.lookback, scores)
    return found


def _starts(task: Forecasting, data: Any, split: str, horizon: int) -> np.ndarray:
    data.setup()
    own = task.describe["horizon"]
    return data.splits[split] if horizon == own else data.starts(split, -(-horizon // own) * own)


def _some(starts: np.ndarray, most: int) -> np.ndarray:
    """At most so many, evenly over all."""
    return starts[np.unique(np.linspace(0, len(starts) - 1, min(len(starts), most)).round().astype(np.int64))]


def _errors(task: Forecasting, data: Any, starts: np.ndarray, horizon: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Truth minus forecast and `outside`, (batch, horizon, targets), of the windows that start at these rows."""
    own, size, training = task.describe["horizon"], data.loading.batch_size, task.model.training
    task.model.eval()
    for first in range(0, len(starts), size):
        batch = data.window(starts[first : first + size], horizon=-(-horizon // own) * own)
        said, truth = forecast(task, batch.past, batch.marks, horizon), batch.future[:, :horizon, : task.targets]
        yield truth - said.middle, outside(truth, said.low, said.high)
    task.model.train(training)
