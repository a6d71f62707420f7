"""Classification of sets of points and of graphs: accuracy of all and of the mean class, pictures of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from ...core.pictures import RIGHT, WRONG
from ...core.ranges import Count, Rate, Weight, checked
from ..classification import Classified, Classifying
from .drawn_sets import draw_clouds, draw_graphs
from .image_grid import shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWN = 24


class SetClassification(Classifying):
    """One label a sample, which is no image; a subclass says what of a batch is a sample (`kept`), and draws some (`draw`).

    Args:
        model: the network.
        describe: of the data: "num_classes" (or "classes").
        label_smoothing: share of the target spread evenly over all classes, from 0 to below 1.
        worst: number of test samples in the picture of the worst predictions; 0: none.
        auxiliary: weight of what the model itself wants added to the loss.
    """

    what = "samples"

    @checked(group="task")
    def __init__(
        self,
        model: nn.Module,
        describe: Mapping[str, Any],
        label_smoothing: Rate = 0.0,
        worst: Count = 24,
        auxiliary: Weight = 1.0,
    ):
        super().__init__(model, describe, label_smoothing, worst, auxiliary)

    def labels(self, batch: tuple[Tensor, ...]) -> Tensor:
        return batch[-1]

    def inputs(self, batch: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(batch[:-1])

    def more_metrics(self) -> dict[str, Metric]:
        return {"class_accuracy": MulticlassAccuracy(self.num_classes, average="macro", validate_args=False)}

    def kept(self, batch: tuple[Tensor, ...], positions: Tensor) -> Sequence[Any]:
        return list(zip(*(each[positions].cpu() for each in self.inputs(batch)), strict=True))

    def draw(
        self, samples: Sequence[Any], titles: Sequence[str], heading: str, colours: Sequence[str] | None = None
    ) -> Figure:
        """Draws samples as `kept` gives them, each under a title."""
        raise NotImplementedError

    def draw_batch(self, batch: tuple[Tensor, ...]) -> Figure:
        """Draws up to 24 samples of a training batch under the names of their labels."""
        labels = self.labels(batch)
        samples = self.kept(batch, torch.arange(min(DRAWN, len(labels))))
        names = [shorten(self.name_of(label)) for label in labels[:DRAWN].tolist()]
        return self.draw(samples, names, f"First training batch: {len(samples)} of {len(labels)} {self.what}")

    def draw_worst(self) -> Figure:
        """Draws the test samples with the highest loss: true class, predicted class, confidence in both."""
        titles, colours = [], []
        for entry in self.worst.entries:
            true, said = (shorten(self.name_of(entry[which]), 13) for which in ("true", "predicted"))
            titles.append(f"is {true} ({entry['true_confidence']:.0%})\nsaid {said} ({entry['confidence']:.0%})")
            colours.append(RIGHT if entry["true"] == entry["predicted"] else WRONG)
        heading = f"Worst of {self.worst.seen:,} test {self.what}: class, prediction (confidence)"
        return self.draw([entry["sample"] for entry in self.worst.entries], titles, heading, colours)


class PointClassification(SetClassification):
    """One label a cloud. Batches are points (batch, points, 3) and labels (batch) int64; arguments are SetClassification's."""

    what = "clouds"

    def pictures(self, stage: str, batch: Any = None) -> Mapping[str, Figure | str]:
        found = dict(super().pictures(stage, batch))
        if stage == "train" and hasattr(self.model, "order_of"):
            found["orders"] = self.draw_orders(batch[0][:4])
        return found

    def draw(
        self, samples: Sequence[Any], titles: Sequence[str], heading: str, colours: Sequence[str] | None = None
    ) -> Figure:
        return draw_clouds([points for (points,) in samples], titles, heading, colours)

    def draw_orders(self, points: Tensor) -> Figure:
        """Draws the centres of clouds (batch, points, 3) in each order in which the model reads them, from dark to light."""
        _, centres = self.model.group_divider(points)
        order, names = self.model.order_of(centres), self.model.orders
        clouds = [cloud for cloud in centres for _ in names]
        heading = "The groups' centres, in the orders in which they are read"
        return draw_clouds(clouds, list(names) * len(centres), heading, paths=list(order.flatten(0, 1)))

    def draw_answer(self, sample: Tensor, name: str, answer: Classified) -> Figure:
        """Draws a cloud (points, 3) under what the model says of it."""
        return draw_clouds([sample], [f"{shorten(name, 24)}\n{answer.line}"], f"{shorten(answer.names[0], 30)}")


class GraphClassification(SetClassification):
    """One label a graph.

    Batches are the nodes' tags (batch, nodes) int64, -1 where a graph has fewer nodes, what random walks say of them (batch, nodes,
    steps), edges (batch, edges, 2) int64, -1 where there are fewer, and labels (batch) int64. Arguments are SetClassification's.
    """

    what = "graphs"

    def draw(
        self, samples: Sequence[Any], titles: Sequence[str], heading: str, colours: Sequence[str] | None = None
    ) -> Figure:
        return draw_graphs([(tags, edges) for tags, _, edges in samples], titles, heading, colours)
