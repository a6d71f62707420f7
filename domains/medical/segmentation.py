"""Segmentation: Dice and cross-entropy at every scale, whole volumes by sliding windows, Dice, NSD and HD95 of each class."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric, Metric

from ...core.ranges import Count, Positive, Rate, Weight, checked
from ..task import Task
from .inference import segment
from .overlays import draw_bars, draw_cases

if TYPE_CHECKING:
    from matplotlib.figure import Figure

IGNORED = 255  # a label that is neither learnt nor counted


class Segmentation(Task):
    """A class for each voxel.

    Batches are images (batch, channels, *sizes) and labels (batch, *sizes) int64, where 255 is neither learnt nor counted; the
    model returns logits (batch, classes, *sizes), or in training a list of them, the finest first. In training the sizes are
    the patch's; otherwise any, and windows of the patch's sizes slide over the volume.

    Args:
        model: the network.
        describe: of the data: "classes" (the background first), "patch_size", "spacing" (mm).
        dice, cross_entropy: weights of the two parts of the loss; Dice is of all classes but the background, over the batch.
        deep_supervision: how much less each coarser scale weighs than the one before it; 0: only the finest counts.
        overlap: share of a window that the next one covers too. windows: at a time.
        mirror: average over mirror images in validation and test.
        tolerance: mm that a surface may be away and still count for NSD.
        distances: measure NSD and HD95 in the test.
        worst: test volumes drawn, the worst first; 0: no picture.
        auxiliary: weight of what the model itself wants added to the loss.
    """

    monitor: ClassVar[tuple[str, str]] = ("val/dice", "max")

    @checked(group="task")
    def __init__(
        self,
        model: nn.Module,
        describe: Mapping[str, Any],
        dice: Weight = 1.0,
        cross_entropy: Weight = 1.0,
        deep_supervision: Weight = 0.5,
        overlap: Rate = 0.5,
        windows: Positive = 4,
        mirror: bool = False,
        tolerance: Positive = 1.0,
        distances: bool = True,
        worst: Count = 4,
        auxiliary: Weight = 1.0,
    ):
        super().__init__(model, describe, auxiliary)
        self.dice, self.cross_entropy, self.deep_supervision = dice, cross_entropy, deep_supervision
        self.overlap, self.windows, self.mirror = overlap, int(windows), mirror
        self.tolerance, self.distances, self.worst = tolerance, distances, worst
        self.names = [str(name) for name in self.describe["classes"]][1:]
        self.metrics = nn.ModuleDict({stage: self._new_metrics(stage) for stage in ("val", "test")})
        self._drawn: list[dict[str, Any]] = []

    def _new_metrics(self, stage: str) -> nn.ModuleDict:
        kinds = ("dice", "nsd", "hd95") if stage == "test" and self.distances else ("dice",)
        names = [f"{kind}{end}" for kind in kinds for end in ("", *map(_ending, self.names))]
        # of a class that is in neither volume there is nothing to say
        return nn.ModuleDict({name: MeanMetric(nan_strategy="ignore") for name in names})

    def step(self, batch: tuple[Tensor, Tensor], stage: str) -> tuple[Tensor, dict[str, Tensor | Metric]]:
        images, labels = batch
        if stage == "train":
            found = self.model(images)
            scales = found if isinstance(found, list | tuple) else [found]
            return self.loss(scales, labels), {"dice": soft_dice(scales[0].detach().float(), labels).mean()}
        logits = segment(
            self.model, images, self.describe["patch_size"], self.overlap, self.windows, self.mirror
        ).float()
        said = logits.argmax(1)
        for one, truth, image in zip(said, labels, images, strict=True):
            self._measure(one, truth, image, stage)
        return self.loss([logits], labels), dict(self.metrics[stage])

    def loss(self, scales: Sequence[Tensor], labels: Tensor) -> Tensor:
        """Dice and cross-entropy of the logits (batch, classes, *sizes) of each scale, the finest first; a scalar."""
        weights = [self.deep_supervision**number for number in range(len(scales))]
        total = labels.new_zeros((), dtype=torch.float32)
        for weight, logits in zip(weights, scales, strict=True):
            logits = logits.float()
            target = resized_labels(labels, logits.shape[2:])
            known = target != IGNORED
            entropy = F.cross_entropy(logits, target, ignore_index=IGNORED, reduction="sum") / known.sum().clamp(min=1)
            total = total + weight * (self.cross_entropy * entropy + self.dice * (1 - soft_dice(logits, target).mean()))
        return total / sum(weights)

    def on_test_start(self) -> None:
        self._drawn = []

    def pictures(self, stage: str, batch: Any = None) -> Mapping[str, Figure | str]:
        if stage == "train":
            images, labels = (each[:6].cpu() for each in batch)
            cases = [{"image": image, "truth": truth, "title": ""} for image, truth in zip(images, labels, strict=True)]
            return {"first_batch": draw_cases(cases, self.names, f"First training batch: {len(batch[0])} patches")}
        if stage == "val" or not self._drawn or not self.worst:
            return {}
        measured = {name: float(metric.compute()) for name, metric in self.metrics["test"].items()}
        heading = f"Worst of {len(self._drawn)} test volumes: image, truth, answer"
        return {
            "worst_predictions": draw_cases(self._worst(), self.names, heading),
            "classes": draw_bars([measured[f"dice{_ending(name)}"] for name in self.names], self.names),
        }

    def _measure(self, said: Tensor, truth: Tensor, image: Tensor, stage: str) -> None:
        """One volume, (*sizes) each, into the metrics of a stage."""
        said = torch.where(truth == IGNORED, 0, said)
        truth = torch.where(truth == IGNORED, 0, truth)
        found = {"dice": dice_of(said, truth, len(self.names))}
        if stage == "test" and self.distances:
            found |= self._distances(said, truth)
        metrics = self.metrics[stage]
        for kind, values in found.items():
            metrics[kind].update(values.nanmean())
            for name, value in zip(self.names, values, strict=True):
                metrics[f"{kind}{_ending(name)}"].update(value)
        if stage == "test" and self.worst:
            dice = float(found["dice"].nan_to_num(1.0).mean())
            kept = {"image": image.cpu(), "truth": truth.cpu(), "said": said.cpu()}
            self._drawn.append({"dice": dice, "title": f"Dice {dice:.3f}", **kept})
            for each in sorted(self._drawn, key=lambda each: each["dice"])[self.worst :]:
                each.pop("image", None), each.pop("truth", None), each.pop("said", None)

    def _worst(self) -> list[dict[str, Any]]:
        return sorted(self._drawn, key=lambda each: each["dice"])[: self.worst]

    def _distances(self, said: Tensor, truth: Tensor) -> dict[str, Tensor]:
        """NSD and HD95 (mm) of each class but the background; NaN of what is in neither volume."""
        from monai.metrics import compute_hausdorff_distance, compute_surface_dice

        count, spacing = len(self.names) + 1, list(self.describe.get("spacing") or (1.0,) * said.dim())
        one, other = (F.one_hot(each, count).movedim(-1, 0)[None].cpu().bool() for each in (said, truth))
        here = [bool(one[0, number].any()) + bool(other[0, number].any()) for number in range(1, count)]
        values = {"nsd": torch.full((count - 1,), math.nan), "hd95": torch.full((count - 1,), math.nan)}
        farthest = math.sqrt(sum((n * step) ** 2 for n, step in zip(said.shape, spacing, strict=True)))
        for number, volumes in enumerate(here):
            if volumes == 1:  # all missed, or nothing there: as far away as the volume is long
                values["nsd"][number], values["hd95"][number] = 0.0, farthest
            if volumes == 2:
                pair = [torch.stack([~each[:, number + 1], each[:, number + 1]], 1) for each in (one, other)]
                with warnings.catch_warnings():
                    # MONAI 1.6 warns of an argument that it gives itself.
                    warnings.simplefilter("ignore", FutureWarning)
                    surface = compute_surface_dice(*pair, class_thresholds=[self.tolerance], spacing=spacing)
                    distance = compute_hausdorff_distance(*pair, percentile=95, spacing=spacing)
                values["nsd"][number], values["hd95"][number] = surface[0, 0], distance[0, 0]
        return values


def soft_dice(logits: Tensor, labels: Tensor) -> Tensor:
    """Dice of the probabilities of each class but the background, over a whole batch: (classes - 1,).

    Args:
        logits: (batch, classes, *sizes). labels: (batch, *sizes), 255 where nothing is known.
    """
    classes, known = logits.shape[1], labels != IGNORED
    truth = F.one_hot(torch.where(known, labels, 0), classes).movedim(-1, 1)[:, 1:] * known[:, None]
    likely = logits.softmax(1)[:, 1:] * known[:, None]
    around = (0, *range(2, logits.dim()))
    both, all_ = (likely * truth).sum(around), likely.sum(around) + truth.sum(around)
    return (2 * both + 1e-5) / (all_ + 1e-5)


def dice_of(said: Tensor, truth: Tensor, classes: int) -> Tensor:
    """Dice of classes 1 to `classes` of two label volumes; NaN of a class that neither has."""
    each = torch.arange(1, classes + 1, device=said.device).view(-1, *(1,) * said.dim())
    one, other = (said == each).flatten(1), (truth == each).flatten(1)
    both, all_ = (one & other).sum(1), one.sum(1) + other.sum(1)
    return torch.where(all_ == 0, math.nan, 2 * both / all_.clamp(min=1))


def resized_labels(labels: Tensor, sizes: Sequence[int]) -> Tensor:
    """(batch, *sizes) -> (batch, *other sizes), each the label nearest to it."""
    if tuple(labels.shape[1:]) == tuple(sizes):
        return labels
    return F.interpolate(labels[:, None].float(), size=tuple(sizes), mode="nearest-exact")[:, 0].long()


def _ending(name: str) -> str:
    return "_" + "".join(letter if letter.isalnum() else "_" for letter in name)
