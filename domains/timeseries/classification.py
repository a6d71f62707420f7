"""A class for each series, beside what the nearest training series says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics import Metric

from ...core.errors import UserError
from ...core.pictures import INK, RIGHT, WRONG
from ...core.ranges import Count, Rate, Weight, checked
from ..classification import Classifying
from .minirocket import minirocket as fit_minirocket

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 4


class Classification(Classifying):
    """One label a series. Batches are (batch, length, variables) and labels (batch,); the model returns logits (batch, classes).

    A test also says the accuracy of the nearest training series by Euclidean distance, the archives' own baseline, as
    accuracy_nearest, and that of MiniRocket, a linear classifier over fixed convolutions, as accuracy_minirocket.

    Args:
        model: the network.
        describe: of the data: "num_classes", "classes".
        minirocket: fit and test MiniRocket too, on the whole training part.
        label_smoothing, worst, auxiliary: see Classifying.
    """

    @checked(group="task")
    def __init__(
        self,
        model: nn.Module,
        describe: Mapping[str, Any],
        label_smoothing: Rate = 0.0,
        worst: Count = 12,
        minirocket: bool = True,
        auxiliary: Weight = 1.0,
    ):
        if "num_classes" not in describe:
            raise UserError(
                "these data have no classes", given=describe.get("name"), do="choose another task= or data="
            )
        super().__init__(model, describe, label_smoothing, worst, auxiliary)
        self.minirocket = minirocket
        self._linear: Callable[[np.ndarray], np.ndarray] | None = None

    def on_test_start(self) -> None:
        super().on_test_start()
        if self.minirocket:
            values, labels = self.trainer.datamodule.known_series()
            self._linear = fit_minirocket(values.numpy(), labels.numpy())

    def step(self, batch: Any, stage: str) -> tuple[Tensor, dict[str, Tensor | Metric]]:
        loss, metrics = super().step(batch, stage)
        data = getattr(self._trainer, "datamodule", None)
        if stage == "test" and data is not None:
            said = nearest(batch[0].cpu(), *data.known_series())
            metrics["accuracy_nearest"] = (said == batch[1].cpu()).float().mean().to(loss)
            if self._linear is not None:
                said = torch.from_numpy(self._linear(batch[0].float().cpu().numpy()))
                metrics["accuracy_minirocket"] = (said == batch[1].cpu()).float().mean().to(loss)
        return loss, metrics

    def kept(self, batch: Any, positions: Tensor) -> Sequence[Tensor]:
        return list(batch[0][positions].cpu())

    def draw_batch(self, batch: Any) -> Figure:
        values, labels = batch[0][:12].cpu(), batch[1][:12].tolist()
        titles = [self.name_of(label) for label in labels]
        return draw_series(f"First training batch: {len(titles)} of {len(batch[1])} series", list(values), titles)

    def draw_worst(self) -> Figure:
        entries = self.worst.entries
        titles = [
            f"is {self.name_of(each['true'])}, said {self.name_of(each['predicted'])} ({each['confidence']:.0%})"
            for each in entries
        ]
        colours = [RIGHT if each["true"] == each["predicted"] else WRONG for each in entries]
        heading = f"Worst of {self.worst.seen:,} test series"
        return draw_series(heading, [each["sample"] for each in entries], titles, colours)


def nearest(values: Tensor, known: Tensor, labels: Tensor) -> Tensor:
    """The label of the nearest known series by Euclidean distance, (batch,).

    Args:
        values, known: (batch, length, variables), (series, length, variables). labels: (series,).
    """
    return labels[torch.cdist(values.flatten(1).double(), known.flatten(1).double()).argmin(1)]


def draw_series(
    heading: str, series: Sequence[Tensor], titles: Sequence[str], colours: Sequence[str] | None = None
) -> Figure:
    """Series (length, variables), each in a panel of its own."""
    from matplotlib.figure import Figure

    rows = -(-len(series) // COLUMNS)
    figure = Figure((3 * COLUMNS, 1.7 * rows + 0.5), dpi=110, layout="constrained")
    figure.suptitle(heading, color=INK, fontsize=11)
    axes = figure.subplots(rows, COLUMNS, squeeze=False).flat
    for number, axis in enumerate(axes):
        axis.set_axis_off()
        if number < len(series):
            axis.plot(series[number].float(), linewidth=0.9)
            axis.set_title(titles[number], fontsize=8, color=colours[number] if colours else INK)
    return figure
