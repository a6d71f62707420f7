"""Classes of whole images and volumes: cross-entropy, accuracy, area under the ROC curve, two pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAUROC

from ...core.pictures import INK, RIGHT, WRONG
from ...core.ranges import Count, Rate, Weight, checked
from ..classification import Classifying
from .overlays import grey_of, planes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 24  # images in the picture of the first batch


class Classification(Classifying):
    """One label an image or volume.

    Batches are images (batch, channels, *sizes) and labels (batch,) int64; the model returns logits (batch, classes).

    Args:
        model: the network.
        describe: of the data: "num_classes" and "classes".
        label_smoothing: share of the target spread evenly over all classes, from 0 to below 1 (Szegedy et al. 2016).
        worst: number of test images in the picture of the worst predictions; 0: none.
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
        """The area under the ROC curve of each class against the others, their mean (MedMNIST's AUC)."""
        return {"auc": AreaUnderCurve(self.num_classes, average="macro", thresholds=None, validate_args=False)}

    def kept(self, batch: tuple[Tensor, Tensor], positions: Tensor) -> Tensor:
        return batch[0][positions].cpu()

    def draw_batch(self, batch: tuple[Tensor, Tensor]) -> Figure:
        """Draws up to 24 images of a training batch under the names of their labels; of volumes a slice from the middle."""
        images, labels = (each[:SHOWN].cpu() for each in batch)
        heading = f"First training batch: {len(images)} of {len(batch[0])} images"
        return draw_slices(images, [self.name_of(label) for label in labels.tolist()], heading)

    def draw_worst(self) -> Figure:
        """Draws the test images with the highest loss: true class, predicted class, confidence in both."""
        titles, colours = [], []
        for entry in self.worst.entries:
            true, said = (self.name_of(entry[which])[:16] for which in ("true", "predicted"))
            titles.append(f"is {true} ({entry['true_confidence']:.0%})\nsaid {said} ({entry['confidence']:.0%})")
            colours.append(RIGHT if entry["true"] == entry["predicted"] else WRONG)
        heading = f"Worst of {self.worst.seen:,} test images: class, prediction (confidence)"
        return draw_slices([entry["sample"] for entry in self.worst.entries], titles, heading, colours)


class AreaUnderCurve(MulticlassAUROC):
    """As torchmetrics has it, but NaN, without a warning, where a test has one class alone."""

    def compute(self) -> Tensor:
        target = self.target
        labels = torch.cat(target) if isinstance(target, list) else target
        if len(labels.unique()) < 2:
            return labels.new_full((), float("nan"), dtype=torch.float32)
        return super().compute()


def draw_slices(
    images: Sequence[Tensor] | Tensor, titles: Sequence[str], heading: str, colours: Sequence[str] | None = None
) -> Figure:
    """A grid of images, (channels, *sizes) each; of a volume the slice in the middle of its first axis."""
    from matplotlib.figure import Figure

    columns = min(len(images), 8)
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(max(4.5, 1.45 * columns), 1.8 * rows + 0.5), dpi=110)
    places = figure.subplots(rows, columns, squeeze=False).flatten()
    for place in places:
        place.axis("off")
    for number, (place, image) in enumerate(zip(places, images, strict=False)):
        image = np.asarray(image)
        cut = planes(image.shape[1:], np.zeros(image.shape[1:]))[0]
        place.imshow(grey_of(image[(slice(None), *cut)]), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        place.set_title(titles[number], fontsize=7.5, color=colours[number] if colours else INK)
    figure.suptitle(heading, fontsize=10, color=INK)
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.02, top=1 - 0.85 / figure.get_figheight(), hspace=0.4)
    return figure
