"""Classification of point clouds: accuracy of all and of the mean class, pictures of clouds and of the orders they are read in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from ...core.pictures import RIGHT, WRONG
from ...core.ranges import Count, Rate, Weight, checked
from ..classification import Classified, Classifying
from .drawn_sets import draw_clouds
from .image_grid import shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWN = 24


class PointClassification(Classifying):
    """One label a cloud.

    Batches are points (batch, points, 3) and labels (batch) int64; the model returns logits (batch, classes).

    Args:
        model: the network.
        describe: of the data: "num_classes" (or "classes").
        label_smoothing: share of the target spread evenly over all classes, from 0 to below 1.
        worst: number of test clouds in the picture of the worst predictions; 0: none.
        auxiliary: weight of what the model itself wants added to the loss.
    """

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

    def more_metrics(self) -> dict[str, Metric]:
        return {"class_accuracy": MulticlassAccuracy(self.num_classes, average="macro", validate_args=False)}

    def kept(self, batch: tuple[Tensor, Tensor], positions: Tensor) -> Tensor:
        return batch[0][positions].cpu()

    def pictures(self, stage: str, batch: Any = None) -> Mapping[str, Figure | str]:
        found = dict(super().pictures(stage, batch))
        if stage == "train" and hasattr(self.model, "order_of"):
            found["orders"] = self.draw_orders(batch[0][:4])
        return found

    def draw_batch(self, batch: tuple[Tensor, Tensor]) -> Figure:
        """Draws up to 24 clouds of a training batch under the names of their labels."""
        points, labels = (each[:DRAWN].cpu() for each in batch)
        heading = f"First training batch: {len(points)} of {len(batch[0])} clouds, {points.shape[1]} points"
        return draw_clouds(list(points), [shorten(self.name_of(label)) for label in labels.tolist()], heading)

    def draw_worst(self) -> Figure:
        """Draws the test clouds with the highest loss: true class, predicted class, confidence in both."""
        titles, colours = [], []
        for entry in self.worst.entries:
            true, said = (shorten(self.name_of(entry[which]), 13) for which in ("true", "predicted"))
            titles.append(f"is {true} ({entry['true_confidence']:.0%})\nsaid {said} ({entry['confidence']:.0%})")
            colours.append(RIGHT if entry["true"] == entry["predicted"] else WRONG)
        heading = f"Worst of {self.worst.seen:,} test clouds: class, prediction (confidence)"
        return draw_clouds([entry["sample"] for entry in self.worst.entries], titles, heading, colours)

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
