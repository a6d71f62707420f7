"""Anomaly scores: how far values are from what the rest of their window says, measured on anomalies that are put in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import BinaryAUROC, BinaryAveragePrecision

from ...core.ranges import Fraction, Share, Size, Weight, checked
from .imputation import Hiding, line
from .pictures import draw_anomalies

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = ("spike", "shift", "noise", "flat", "reversed")
CALIBRATION = 2_000_000  # scores that the alarm's threshold is made from at most


class Anomaly(Hiding):
    """The error of a value that is hidden, in turn for all values of a window, is its score.

    The training part is taken to be normal. A window is cut into pieces of `width` steps; in training a random half of them is
    hidden in each variable, to score a window its even and then its odd pieces are. An alarm is a score above the one that a share
    `alarms` of the validation part exceeds.

    Tested on anomalies of five kinds (KINDS) that are put into a share of the test windows, the same for every model: areas under
    the receiver operating characteristic and the precision-recall curve over all values (auroc, average_precision), precision,
    recall and F1 of the alarms, each value counting by itself (no adjustment by segments, which makes random scores look good:
    Kim et al. 2022, arXiv 2109.05257). Beside them the areas of the distance to the step before (auroc_step), and of the
    distance to the line between the pieces beside it (auroc_line).

    Args:
        width: steps that are hidden in one piece.
        alarms: share of normal values that is taken to be too many false alarms.
        injected: share of the test windows with an anomaly.
        model, describe, auxiliary: see Hiding.
    """

    @checked(group="task")
    def __init__(
        self,
        model: nn.Module,
        describe: Mapping[str, Any],
        width: Size = 8,
        alarms: Fraction = 0.01,
        injected: Share = 0.5,
        auxiliary: Weight = 1.0,
    ):
        super().__init__(model, describe, auxiliary)
        self.width, self.alarms, self.injected = width, alarms, injected
        self.threshold: Tensor | None = None
        names = ("", "_step", "_line")
        areas = {f"auroc{name}": BinaryAUROC(validate_args=False) for name in names}
        areas |= {f"average_precision{name}": BinaryAveragePrecision(validate_args=False) for name in names}
        self.areas = nn.ModuleDict(areas)
        self._counts = np.zeros(3)

    def seen_of(self, batch: Any, stage: str) -> Tensor:
        """As of Hiding."""
        values = batch[0]
        pieces = -(-values.shape[1] // self.width)
        if stage != "train":
            return self._side(values, 0)
        drawn = torch.rand(len(values), pieces, values.shape[2], device=values.device) < 0.5
        return drawn.repeat_interleave(self.width, 1)[:, : values.shape[1]]

    def scores(self, values: Tensor, marks: Tensor | None) -> Tensor:
        """The score of every value of a window, (batch, look-back, variables): its absolute error, scaled as the values are."""
        return (self.expected(values, marks) - values.float()).abs()

    def expected(self, values: Tensor, marks: Tensor | None) -> Tensor:
        """What the other pieces of a window say of each value, (batch, look-back, variables)."""
        even, odd = (self._side(values, side) for side in (0, 1))
        return torch.where(even, self.filled(values, odd, marks), self.filled(values, even, marks))

    def _side(self, values: Tensor, side: int) -> Tensor:
        steps = torch.arange(values.shape[1], device=values.device) // self.width
        return (steps % 2 == side)[None, :, None].expand_as(values)

    def step(self, batch: Any, stage: str) -> tuple[Tensor, dict[str, Tensor | Metric]]:
        loss, metrics = super().step(batch, stage)
        if stage != "test":
            return loss, metrics
        values, wrong = self.with_anomalies(batch)
        marks = self.inputs(batch)[1]
        found = self.scores(values, marks)
        before = torch.cat([values[:, :1], values[:, :-1]], 1)
        even, odd = (self._side(values, side) for side in (0, 1))
        lines = torch.where(even, line(values, odd), line(values, even))
        every = {"": found, "_step": (values - before).abs(), "_line": (values - lines).abs()}
        for name, scores in every.items():
            for area in ("auroc", "average_precision"):
                # between 0 and 1, in the same order: these metrics take nothing else
                self.areas[area + name].update((scores / (1 + scores)).flatten().cpu(), wrong.flatten().cpu())
        if self.threshold is not None:
            alarm = found > self.threshold.to(found)
            self._counts += [int(each.sum()) for each in (alarm & wrong, alarm, wrong)]
        return loss, {**metrics, **self.areas}

    def with_anomalies(self, batch: Any) -> tuple[Tensor, Tensor]:
        """The windows with their anomalies, and where these are, (batch, look-back, variables) bool."""
        values, wrong = batch[0].float().clone(), torch.zeros(batch[0].shape, dtype=torch.bool, device=batch[0].device)
        for row, index in enumerate(batch[4].tolist()):
            random = np.random.default_rng(index)
            if random.random() < self.injected:
                put_in(values[row], wrong[row], random)
        return values, wrong

    def on_test_start(self) -> None:
        self._counts = np.zeros(3)
        self.threshold = alarm_threshold(self, self.trainer.datamodule)

    def on_test_epoch_end(self) -> None:
        right, alarms, wrong = self._counts
        if self.threshold is not None:
            found = {"precision": right / max(alarms, 1), "recall": right / max(wrong, 1)}
            found["f1"] = 2 * right / max(alarms + wrong, 1)
            self.log_dict({f"test/{name}": torch.tensor(value, dtype=torch.float32) for name, value in found.items()})

    def pictures(self, stage: str, batch: Any = None) -> Mapping[str, Figure | str]:
        if stage == "val":
            return {}
        if stage == "test":
            batch = self.trainer.datamodule.example(12)
        values, wrong = self.with_anomalies(batch._replace(past=batch.past[:12], index=batch.index[:12]))
        marks = self.inputs(batch)[1]
        weight = next(self.model.parameters(), values)
        with torch.no_grad():
            given = values.to(weight), None if marks is None else marks[:12].to(weight)
            said = self.expected(*given).cpu()
        name = "first_batch" if stage == "train" else "anomalies"
        return {
            name: draw_anomalies(
                "Windows with anomalies put in, and what was expected", values.cpu(), wrong.cpu(), said
            )
        }


def put_in(values: Tensor, wrong: Tensor, random: np.random.Generator) -> str:
    """Puts an anomaly into one variable of a window, (look-back, variables), in place, and says where in `wrong`; its kind."""
    length, variables = values.shape
    column, kind = int(random.integers(variables)), KINDS[int(random.integers(len(KINDS)))]
    steps = min(int(random.integers(1, 4) if kind == "spike" else random.integers(8, 25)), length)
    start = int(random.integers(length - steps + 1))
    part = values[start : start + steps, column]
    size = max(float(values[:, column].std(correction=0)), 0.1) * random.choice([-1, 1]) * random.uniform(2, 4)
    if kind in ("spike", "shift"):
        part += size
    elif kind == "noise":
        part += abs(size) / 2 * torch.from_numpy(random.standard_normal(steps)).to(part)
    elif kind == "flat":
        part[:] = part[0].clone()
    else:
        part[:] = part.flip(0)
    wrong[start : start + steps, column] = True
    return kind


@torch.no_grad()
def alarm_threshold(task: Anomaly, data: Any) -> Tensor:
    """The score that a share `alarms` of the validation part's values exceeds, for each variable, (variables,)."""
    data.setup()
    starts, found, training = data.splits["val"][:: data.lookback], [], task.model.training
    starts = starts[: max(CALIBRATION // (data.lookback * len(data.variables)), 1)]
    weight = next(task.model.parameters(), torch.zeros((), device=task.device))
    task.model.eval()
    for first in range(0, len(starts), data.loading.batch_size):
        values, marks = task.inputs(data.window(starts[first : first + data.loading.batch_size]))
        found.append(task.scores(values.to(weight), None if marks is None else marks.to(weight)).flatten(0, 1).cpu())
    task.model.train(training)
    return torch.from_numpy(np.quantile(torch.cat(found).numpy(), 1 - task.alarms, axis=0)).float()
