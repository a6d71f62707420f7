"""What all forecasting data share: windows over series, split in time, scaled by the training part, none of them dropped."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...core.errors import UserError
from ...core.ranges import Size, checked
from ..loading import Loading
from ..module import SPLITS, DataModule, Description
from .frequency import Frequency, calendar
from .scaling import Scaler, fitted

MOST_CORRELATED = 64  # variables whose rank correlations are told to a model


class Window(NamedTuple):
    """A batch.

    Args:
        past: (batch, look-back, variables) float32, scaled.
        future: (batch, horizon, variables), the steps that follow; the first `targets` variables are to be forecast.
        marks: (batch, look-back + horizon, mark features): what is known of every step, the coming ones too.
        series: (batch,) int64, which series.
        index: (batch,) int64, the position of the window in its split.
    """

    past: Tensor
    future: Tensor
    marks: Tensor
    series: Tensor
    index: Tensor


@dataclass(frozen=True)
class Series:
    """Variables that are measured together.

    Args:
        name: of the series.
        values: (steps, variables) float64.
        stamps: (steps,) datetime64[s]; None: no times.
        known: (steps, features): what is known of coming steps too, beside the calendar; None: nothing.
        measured: (steps, variables) bool: which values are not filled in; None: all are measured.
        before: so many of the first steps are not the file's own: they are those that it goes on from.
        ends: where the training, the validation and the test part end, in steps.
    """

    name: str
    values: np.ndarray
    stamps: np.ndarray | None
    ends: tuple[int, int, int]
    known: np.ndarray | None = None
    measured: np.ndarray | None = None
    before: int = 0


class SeriesData(DataModule):
    """Base of the forecasting data: a subclass reads the series, with `load()`, and says its variables and frequency.

    Batches are `Window`s. The first window of validation and test looks back into the part before, so every step of these parts
    is forecast (the protocol of the Time-Series-Library); scaled by mean and deviation of the training part.

    Args:
        name: the data set's name in results.
        loading: how batches are made.
        lookback, horizon: steps seen and answered.
        step: steps between the starts of validation and test windows.
        windows: only so many test windows of each series, the last ones; None: all.
        marks: give models the calendar, where there are time stamps.
        scale: by the training part; False: values stay as they are.
    """

    variables: Sequence[str]
    targets: int | None = None  # so many of the variables, the first, are to be forecast; None: all
    frequency: Frequency | None = None
    known_names: Sequence[str] = ()
    period = 1  # steps of a season
    model_size: str | None = "micro"  # that suits the data; None: what the model's paper has
    tested = "the test part, every window of it"

    @checked(group="data")
    def __init__(
        self,
        name: str,
        loading: Loading,
        lookback: Size,
        horizon: Size,
        step: Size = 1,
        windows: Size | None = None,
        marks: bool = True,
        scale: bool = True,
    ):
        super().__init__(name, loading)
        self.lookback, self.horizon, self.step, self.windows = lookback, horizon, step, windows
        self.marks, self.scale = marks, scale
        self.splits: dict[str, np.ndarray] | None = None
        self.scaler: Scaler | None = None
        self.series: list[Series] = []

    @abstractmethod
    def load(self) -> list[Series]:
        """Read the series and check them; raises UserError naming the file that is wrong. Sets `variables`, `frequency`, …"""

    def setup(self, stage: str | None = None) -> None:
        """Read the series, once."""
        if self.splits is not None:
            return
        self.series = self.load()
        if self.scaler is None:
            names = [each.name for each in self.series]
            parts = [each.values[: each.ends[0]] for each in self.series]
            self.scaler = replace(
                fitted(parts, names, list(self.variables), self.period, self.scale), about=self.about()
            )
        self._check_scaler()
        scaled = [self.scaler.scaled(each.values, self._number(each.name)) for each in self.series]
        self._values = torch.from_numpy(np.concatenate(scaled))
        known = [self.known(each.stamps, each.known, len(each.values)) for each in self.series]
        self._marks = torch.from_numpy(np.concatenate(known))
        self._numbers = np.concatenate([np.full(len(each.values), self._number(each.name)) for each in self.series])
        self.splits = {split: self._chosen(split) for split in SPLITS}

    def known(self, stamps: np.ndarray | None, known: np.ndarray | None, steps: int) -> np.ndarray:
        """What a model is told of steps, (steps, features) float32: the columns that are known ahead, and the calendar.

        Args: as of Series.
        """
        parts = [np.zeros((steps, 0), np.float32)]
        if known is not None:
            parts.append(known.astype(np.float32))
        if self.marks and stamps is not None and self.frequency is not None:
            parts.append(calendar(stamps, self.frequency))
        return np.concatenate(parts, 1)

    def samples(self, split: str) -> int:
        """Windows of a split."""
        return len(self.splits[split])

    def load_batch(self, split: str, epoch: int, positions: np.ndarray) -> Window:
        """See `Window`."""
        positions = np.asarray(positions)
        return self.window(self.splits[split][positions], positions)

    def window(self, starts: np.ndarray, index: np.ndarray | None = None, horizon: int | None = None) -> Window:
        """The windows that start at these rows of all series one behind the other, (batch,).

        Args:
            index: what they call themselves; None: their rows.
            horizon: steps of their future; None: as set.
        """
        steps = self.lookback + (self.horizon if horizon is None else horizon)
        return self.rows(starts[:, None] + np.arange(steps), index)

    def rows(self, rows: np.ndarray, index: np.ndarray | None = None) -> Window:
        """Windows of these rows of all series, (batch, steps), or of one window, (steps,); index as of `window`."""
        rows = np.atleast_2d(rows)
        starts, rows = rows[:, 0], torch.from_numpy(rows)
        values, series = self._values[rows], torch.from_numpy(self._numbers[starts]).long()
        names = torch.from_numpy(np.asarray(starts if index is None else index, np.int64))
        return Window(
            values[:, : self.lookback].contiguous(), values[:, self.lookback :], self._marks[rows], series, names
        )

    def last(self, number: int) -> tuple[Tensor, Tensor, int]:
        """The end of the series at this place: scaled values (look-back, variables), marks (look-back, features), and where the
        series stands in the scaler.

        Raises:
            UserError: it is shorter than the look-back.
        """
        self.setup()
        end = int(np.cumsum([len(each.values) for each in self.series])[number])
        if len(self.series[number].values) < self.lookback:
            raise UserError(
                f"series {self.series[number].name!r} is shorter than what the model looks back on",
                given=f"{len(self.series[number].values)} steps", allowed=f"at least {self.lookback}",
            )  # fmt: skip
        rows = slice(end - self.lookback, end)
        return self._values[rows], self._marks[rows], self._number(self.series[number].name)

    def after_end(self, number: int, steps: int) -> np.ndarray:
        """The time stamps of the steps that follow the series at this place, (steps,); their numbers where there are no times."""
        each = self.series[number]
        if each.stamps is None or self.frequency is None:
            return np.arange(len(each.values), len(each.values) + steps)
        return self.frequency.after(each.stamps[-1], steps)[1:]

    def known_ahead(
        self, chosen: Sequence[int], steps: int, needed: int, future: str | None = None
    ) -> list[np.ndarray]:
        """What is known of the steps behind the ends of series: for each of those chosen (steps, features).

        Args:
            chosen: places of series.
            steps, needed: how many are wanted, and how many of them have to be right.
            future: a file with coming values.

        Raises:
            UserError: coming values are lacking, or not asked for.
        """
        if future is not None:
            raise UserError(f"nothing of {self.name} is known ahead", given=f"future={future}", do="leave future= out")
        return [self._marks_ahead(number, steps, None) for number in chosen]

    def _marks_ahead(self, number: int, steps: int, known: np.ndarray | None) -> np.ndarray:
        stamps = None if self.series[number].stamps is None else self.after_end(number, steps)
        return self.known(stamps, known, steps)

    def local(self, stamps: np.ndarray) -> np.ndarray:
        """Time stamps as a person wants to see them."""
        return stamps

    def about(self) -> dict[str, Any]:
        """What a run keeps beside the scaler, as JSON values; given to `use` where its weights are used again."""
        return {}

    def use(self, about: Mapping[str, Any]) -> None:
        """Take what `about` has said in a run."""

    def again(self, files: str) -> SeriesData:
        """The same kind of data from other files, read as these were."""
        raise UserError(f"{self.name} has no other files", given=f"input={files}", do="leave input= out")

    def describe(self) -> Description:
        """See `DataModule.describe`."""
        self.read()
        targets = len(self.variables) if self.targets is None else self.targets
        steps = sum(len(each.values) for each in self.series)
        several = f"{len(self.series):,} series, " if len(self.series) > 1 else ""
        every = f" every {self.frequency}" if self.frequency is not None else ""
        names = f"{len(self.variables)} variable{'s' if len(self.variables) > 1 else ''}"
        more = {"source": self.where} if self.where else {}
        return self.described(
            shape=f"{several}{names}, {steps:,} steps{every}; {self.lookback} steps seen, {self.horizon} forecast",
            for_model={
                "task": "forecasting",
                "lookback": self.lookback,
                "horizon": self.horizon,
                "variables": len(self.variables),
                "targets": targets,
                "variable_names": list(self.variables),
                "mark_features": self._marks.shape[1],
                "known_columns": list(self.known_names),
                "period": self.period,
                **self._correlation(),
                "model_size": self.model_size,
            },
            values=self.lookback * len(self.variables),
            length=self.lookback,
            resized_by="data.lookback",
            tested=self.tested,
            **more,
        )

    def _correlation(self) -> dict[str, Any]:
        """The training part's rank correlations between variables, (variables, variables), where they are measured together."""
        if len(self.series) != 1 or not 2 < len(self.variables) <= MOST_CORRELATED:
            return {}
        ranks = self.series[0].values[: self.series[0].ends[0]].argsort(0).argsort(0)
        with np.errstate(invalid="ignore", divide="ignore"):
            found = np.corrcoef(ranks.T)
        return {"rank_correlation": np.nan_to_num(found).round(6).tolist()}

    where = ""  # of the user's own files: which

    def kept(self) -> Mapping[str, Any]:
        """The scaler."""
        if self.scaler is None:
            self.read()
        return {"scaler": self.scaler}

    def keep(self, folder: Path) -> None:
        """See `DataModule.keep`."""
        self.kept()["scaler"].save(folder)

    def restore(self, folder: Path) -> None:
        """See `DataModule.restore`."""
        self.scaler = Scaler.load(folder)
        self.use(self.scaler.about)

    @classmethod
    def reading(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """See `DataModule.reading`: the steps that the model sees and answers."""
        own = {key: settings[key] for key in ("lookback", "horizon", "marks") if settings.get(key) is not None}
        return {**super().reading(settings), **own}

    def _number(self, name: str) -> int:
        """Where a series stands in the scaler."""
        return list(self.scaler.series).index(name)

    def _check_scaler(self) -> None:
        """A restored scaler is of the variables here; series that it does not know are scaled by their own training parts."""
        scaler = self.scaler
        if list(scaler.variables) != list(self.variables):
            raise UserError(
                f"{self.name} has other variables than the model was trained on", given=", ".join(self.variables),
                allowed=", ".join(scaler.variables),
            )  # fmt: skip
        new = [each for each in self.series if each.name not in set(scaler.series)]
        if not new:
            return
        parts = [each.values[: max(each.ends[0], 2)] for each in new]
        more = fitted(parts, [each.name for each in new], list(self.variables), self.period, self.scale)
        fields = {
            key: np.concatenate([getattr(scaler, key), getattr(more, key)])
            for key in ("mean", "deviation", "seasonal_error")
        }
        self.scaler = Scaler([*scaler.series, *more.series], scaler.variables, **fields, about=scaler.about)

    def starts(self, split: str, horizon: int) -> np.ndarray:
        """Where windows of a split start that are followed by so many steps, in rows of all series one behind the other."""
        place, found, before = SPLITS.index(split), [], 0
        for each in self.series:
            first = 0 if place == 0 else max(each.ends[place - 1] - self.lookback, 0)
            last = each.ends[place] - self.lookback - horizon
            if split == "train":
                starts = np.arange(first, last + 1)
            else:
                starts = np.arange(last, first - 1, -self.step)[::-1]
                if split == "test" and self.windows is not None:
                    starts = starts[-self.windows :]
            found.append(before + starts)
            before += len(each.values)
        return np.concatenate(found).astype(np.int64)

    def _chosen(self, split: str) -> np.ndarray:
        """The starts of a split's windows, as many as `loading.limit` allows, evenly over it."""
        starts = self.starts(split, self.horizon)
        if not len(starts):
            self._too_short(split)
        limit = self.loading.limit
        if limit is not None and limit < len(starts):
            starts = starts[np.linspace(0, len(starts) - 1, limit).round().astype(np.int64)]
        return starts

    def _too_short(self, split: str) -> None:
        place = SPLITS.index(split)
        longest = max(each.ends[place] - (each.ends[place - 1] if place else 0) for each in self.series)
        needed = self.horizon + (self.lookback if place == 0 else 0)
        raise UserError(
            f"no window fits into the {split} part of {self.name}",
            given=f"{longest} steps; data.lookback={self.lookback} data.horizon={self.horizon}",
            allowed=f"at least {needed} steps in the {split} part", do="give more rows, or a smaller data.lookback or data.horizon",
        )  # fmt: skip


def shares(steps: int, val_fraction: float, test_fraction: float) -> tuple[int, int, int]:
    """Where the three parts end in time, as the Time-Series-Library rounds: training and test down, validation the rest."""
    train, test = int(steps * (1 - val_fraction - test_fraction) + 1e-9), int(steps * test_fraction + 1e-9)
    return train, steps - test, steps
