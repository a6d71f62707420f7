"""Segmentation of images: cross-entropy and Dice, mean IoU, whole images by windows that slide, the worst of them drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from ...core.ranges import Count, Rate, Size, Weight, checked
from ..dice import soft_dice
from ..task import Task
from ..windows import segment
from .image_grid import denormalise, shorten
from .label_pictures import IGNORED, draw_bars, draw_labels

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Segmentation(Task):
    """A class for each pixel.

    Batches are images (batch, channels, height, width) and classes (batch, height, width) int64, where 255 is neither learnt nor
    counted; the model returns logits (batch, classes, height, width). In training the sizes are the crop's; otherwise any, and
    windows of the crop's size slide over the image.

    Args:
        model: the network.
        describe: of the data: "classes", "image_size" (of a crop), and for the pictures "mean", "std".
        cross_entropy, dice: weights of the two parts of the loss; Dice is of all classes but the first, over the batch.
        overlap: share of a window that the next one covers too. windows: at a time.
        mirror: average over mirror images in validation and test.
        worst: test images drawn, the worst first; 0: no picture.
        auxiliary: weight of what the model itself wants added to the loss.
    """

    monitor: ClassVar[tuple[str, str]] = ("val/miou", "max")

    @checked(group="task")
    def __init__(
        self,
        model: nn.Module,
        describe: Mapping[str, Any],
        cross_entropy: Weight = 1.0,
        dice: Weight = 0.0,
        overlap: Rate = 0.5,
        windows: Size = 8,
        mirror: bool = False,
        worst: Count = 6,
        auxiliary: Weight = 1.0,
    ):
        super().__init__(model, describe, auxiliary)
        self.cross_entropy, self.dice, self.worst = cross_entropy, dice, worst
        self.overlap, self.windows, self.mirror = overlap, windows, mirror
        self.names = [str(name) for name in self.describe["classes"]]
        self.metrics = nn.ModuleDict({stage: self._new_metrics() for stage in ("val", "test")})
        self.each_class = MulticlassJaccardIndex(len(self.names), average="none", **self._counted())
        self._drawn: list[dict[str, Any]] = []
        self._seen = 0

    def _counted(self) -> dict[str, Any]:
        return {"ignore_index": IGNORED, "validate_args": False}

    def _new_metrics(self) -> nn.ModuleDict:
        count, counted = len(self.names), self._counted()
        return nn.ModuleDict(
            {
                "miou": MulticlassJaccardIndex(count, **counted),
                "pixel_accuracy": MulticlassAccuracy(count, average="micro", **counted),
            }
        )

    def step(self, batch: tuple[Tensor, Tensor], stage: str) -> tuple[Tensor, dict[str, Tensor | Metric]]:
        images, classes = batch
        if stage == "train":
            logits = self.model(images).float()
            known = classes != IGNORED
            right = ((logits.detach().argmax(1) == classes) & known).sum() / known.sum().clamp(min=1)
            return self.loss(logits, classes), {"pixel_accuracy": right}
        logits = self.answer(images).float()
        said = logits.argmax(1)
        for metric in (*self.metrics[stage].values(), *([self.each_class] if stage == "test" else [])):
            metric.update(said, classes)
        if stage == "test":
            for image, truth, one in zip(images, classes, said, strict=True):
                self._keep(image, truth, one)
        return self.loss(logits, classes), dict(self.metrics[stage])

    def answer(self, images: Tensor) -> Tensor:
        """Logits of whole images of any size, (batch, classes, height, width)."""
        return segment(self.model, images, self.describe["image_size"], self.overlap, self.windows, self.mirror)

    def loss(self, logits: Tensor, classes: Tensor) -> Tensor:
        """Of logits (batch, classes, height, width), a scalar; 0 where nothing is known."""
        known = (classes != IGNORED).sum().clamp(min=1)
        total = self.cross_entropy * F.cross_entropy(logits, classes, ignore_index=IGNORED, reduction="sum") / known
        return total + self.dice * (1 - soft_dice(logits, classes).mean()) if self.dice else total

    def on_test_start(self) -> None:
        self._drawn, self._seen = [], 0
        self.each_class.reset()

    def pictures(self, stage: str, batch: Any = None) -> Mapping[str, Figure | str]:
        if stage == "train":
            images, classes = (each[:6].cpu() for each in batch)
            heading = f"First training batch: {len(images)} of {len(batch[0])} crops"
            return {"first_batch": self.draw(images, [[each] for each in classes], [""] * len(images), heading)}
        if stage == "val" or not self._drawn:
            return {}
        drawn = sorted(self._drawn, key=lambda each: each["iou"])
        titles = [f"IoU {each['iou']:.3f}" for each in drawn]
        pairs = [[each["truth"], each["said"]] for each in drawn]
        heading = f"Worst of {self._seen} test images: image, truth, answer"
        return {
            "worst_predictions": self.draw([each["image"] for each in drawn], pairs, titles, heading),
            "classes": draw_bars(
                self.each_class.compute().nan_to_num(0).tolist(), [shorten(name) for name in self.names]
            ),
        }

    def draw(self, images: Any, labels: Any, titles: list[str], heading: str) -> Figure:
        """Draws images as the model sees them, (channels, height, width) each, beside their classes."""
        mean, std = self.describe.get("mean"), self.describe.get("std")
        plain = [denormalise(image[None], mean, std)[0] for image in images]
        return draw_labels(plain, labels, titles, heading, self.names)

    def _keep(self, image: Tensor, truth: Tensor, said: Tensor) -> None:
        """One test image, among the `worst` so far or forgotten."""
        self._seen += 1
        if not self.worst:
            return
        self._drawn.append(
            {
                "iou": iou_of(said, truth, len(self.names)),
                "image": image.cpu(),
                "truth": truth.cpu(),
                "said": said.cpu(),
            }
        )
        self._drawn = sorted(self._drawn, key=lambda each: each["iou"])[: self.worst]


def iou_of(said: Tensor, truth: Tensor, classes: int) -> float:
    """Mean IoU over the classes that are said or true somewhere in one image, (height, width) each; 1 where nothing is known."""
    known = truth != IGNORED
    pairs = torch.bincount(truth[known] * classes + said[known], minlength=classes**2).view(classes, classes)
    both, any_ = pairs.diagonal(), pairs.sum(0) + pairs.sum(1) - pairs.diagonal()
    return float((both[any_ > 0] / any_[any_ > 0]).mean()) if bool((any_ > 0).any()) else 1.0
