"""Imputation: hidden values of a window from those that are seen; and what scoring anomalies by hiding them shares with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from ...core.errors import UserError
from ...core.ranges import Fraction, Weight, checked
from ..task import Task
from .pictures import draw_hidden

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Hiding(Task):
    """Base of the tasks that hide values of a window and ask the model for them.

    Batches are data.timeseries.windows.Window, whose past is used; the model is made to answer as many steps as it sees. Each
    variable is scaled by mean and deviation of what is seen of it in the window, the mean stands where values are hidden, and the
    answer is scaled back (TimesNet, arXiv 2210.02186, Time-Series-Library). A subclass says what is hidden (`seen_of`).

    Args:
        model: the network, whose horizon is the look-back.
        describe: of the data: "lookback", "variables".
        auxiliary: weight of what the model itself wants added to the loss.
    """

    monitor: ClassVar[tuple[str, str]] = ("val/loss", "min")

    def __init__(self, model: nn.Module, describe: Mapping[str, Any], auxiliary: float):
        super().__init__(model, describe, auxiliary)
        if "lookback" not in self.describe or "num_classes" in self.describe:
            raise UserError(
                "these data are no series of windows", given=self.describe.get("name"), do="choose another task="
            )
        if getattr(model, "future_marks", False):
            raise UserError("this model reads steps behind its window and fills in none", do="another model=")

    @classmethod
    def asks(cls, describe: Mapping[str, Any], settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """As many steps as are seen; see Task."""
        return {"horizon": describe["lookback"]} if "lookback" in describe else {}

    def inputs(self, batch: Any) -> tuple[Tensor, Tensor | None]:
        """The window, (batch, look-back, variables), and its calendar, (batch, look-back, features)."""
        marks = batch[2][:, : batch[0].shape[1]]
        return batch[0], marks if marks.shape[-1] else None

    def seen_of(self, batch: Any, stage: str) -> Tensor:
        """Which values the model is shown, (batch, look-back, variables) bool."""
        raise NotImplementedError

    def filled(self, values: Tensor, seen: Tensor, marks: Tensor | None) -> Tensor:
        """What the model says of a window, hidden or not, (batch, look-back, variables).

        Args:
            values: (batch, look-back, variables); what is hidden of them does not matter.
            seen: the same shape, bool. marks: (batch, look-back, features).
        """
        shown = torch.where(seen, values, 0)
        count = seen.sum(1, keepdim=True).clamp_min(1)
        mean = shown.sum(1, keepdim=True) / count
        centred = torch.where(seen, values - mean, 0)
        deviation = (centred.square().sum(1, keepdim=True) / count + 1e-5).sqrt()
        return (self.model(centred / deviation, marks) * deviation + mean).float()

    def step(self, batch: Any, stage: str) -> tuple[Tensor, dict[str, Tensor]]:
        values, marks = self.inputs(batch)
        seen = self.seen_of(batch, stage)
        error = (self.filled(values, seen, marks) - values.float())[~seen]
        loss = error.square().mean()
        return loss, {"mse": loss.detach(), "mae": error.detach().abs().mean()}


class Imputation(Hiding):
    """Values that are hidden at random, as the Time-Series-Library hides them, each by itself with one probability.

    Loss and metrics are of the hidden values alone, scaled. A test says beside the model's errors those of the line between the
    nearest values that are seen (mse_line), and of their mean. In validation and test the same values of a window are hidden
    whenever it is asked for.

    Args:
        hidden: share of the values that is hidden; the usual ones: 0.125, 0.25, 0.375, 0.5.
        model, describe, auxiliary: see Hiding.
    """

    @checked(group="task")
    def __init__(self, model: nn.Module, describe: Mapping[str, Any], hidden: Fraction = 0.25, auxiliary: Weight = 1.0):
        super().__init__(model, describe, auxiliary)
        self.hidden = hidden

    def seen_of(self, batch: Any, stage: str) -> Tensor:
        """As of Hiding."""
        values = batch[0]
        if stage == "train":
            return torch.rand_like(values, dtype=torch.float32) >= self.hidden
        drawn = [_uniform(int(each), values.shape[1:]) for each in batch[4].tolist()]
        return (torch.stack(drawn) >= self.hidden).to(values.device)

    def step(self, batch: Any, stage: str) -> tuple[Tensor, dict[str, Tensor]]:
        loss, metrics = super().step(batch, stage)
        if stage == "test":
            values, seen = batch[0].float(), self.seen_of(batch, stage)
            shown = torch.where(seen, values, 0)
            means = (shown.sum(1, keepdim=True) / seen.sum(1, keepdim=True).clamp_min(1)).expand_as(values)
            for name, said in (("line", line(values, seen)), ("mean", means)):
                error = (said - values)[~seen]
                metrics |= {f"mse_{name}": error.square().mean(), f"mae_{name}": error.abs().mean()}
        return loss, metrics

    def pictures(self, stage: str, batch: Any = None) -> Mapping[str, Figure | str]:
        if stage == "val":
            return {}
        if stage == "test":
            batch = self.trainer.datamodule.example(6)
        values, marks = (None if each is None else each[:6].to(self.device) for each in self.inputs(batch))
        seen = self.seen_of(batch._replace(past=values, index=batch.index[:6]), "test")
        weight = next(self.model.parameters(), values)
        with torch.no_grad():
            said = self.filled(values.to(weight), seen, None if marks is None else marks.to(weight))
        name, heading = ("first_batch", "First training batch") if stage == "train" else ("imputed", "Test windows")
        drawn = (values.float().cpu(), seen.cpu(), said.cpu())
        return {
            name: draw_hidden(
                f"{heading}: hidden values and what is said of them", *drawn, self.describe.get("variable_names")
            )
        }


def line(values: Tensor, seen: Tensor) -> Tensor:
    """Values on the line between the nearest ones that are seen, before the first and behind the last those; 0 where none is.

    Args:
        values, seen: (batch, length, variables), seen bool.
    """
    length = values.shape[1]
    steps = torch.arange(length, device=values.device)[None, :, None].expand_as(seen)
    before = torch.where(seen, steps, -1).cummax(1).values
    after = torch.where(seen, steps, length).flip(1).cummin(1).values.flip(1)
    first, last = torch.where(before < 0, after, before), torch.where(after >= length, before, after)
    shown = torch.where(seen, values, 0)
    low, high = (shown.gather(1, place.clamp(0, length - 1)) for place in (first, last))
    share = (steps - first) / (last - first).clamp_min(1)
    return torch.where(seen.any(1, keepdim=True), low + share * (high - low), 0)


def _uniform(seed: int, shape: tuple[int, ...]) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))
