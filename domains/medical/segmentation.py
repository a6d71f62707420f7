"""Segmentation: Dice and cross-entropy at every scale, whole volumes by sliding windows, Dice, NSD and HD95 of each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric

from ...core import scans
from ...core.ranges import Count, Positive, Rate, Weight, checked
from ...core.scans.grid import as_grid
from ..dice import IGNORED, LossSums, resized_labels, soft_dice
from ..task import Task
from ..windows import InMemory, logits_along
from .measures import dice_of, distances_of, in_regions
from .overlays import draw_bars, draw_cases, pictures_of
from .parts import largest_parts

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

DRAWN = 4096  # tokens of a map whose scan is drawn; a line through more is a blot


class Segmentation(Task):
    """A class for each voxel.

    Batches are images (batch, channels, *sizes) and labels (batch, *sizes) int64, where 255 is neither learnt nor counted; the
    model returns logits (batch, classes, *sizes), or in training a list of them, the finest first. In training the sizes are
    the patch's; otherwise any, windows of the patch's sizes slide over the volume, and memory holds a patch's depth of logits.
    At the end of training the validation volumes say of which classes the largest connected part alone is to be kept in
    predicting; validation and test metrics are of answers as they are.

    Args:
        model: the network.
        describe: of the data: "classes" (the background first), "patch_size", "spacing" (mm); "regions" (classes that belong
            together, by name), where there are any: Dice, NSD and HD95 are of them then, cross-entropy of the classes.
        dice, cross_entropy: weights of the two parts of the loss; Dice is of all classes but the background, over the batch.
        deep_supervision: how much less each coarser scale weighs than the one before it; 0: only the finest counts.
        overlap: share of a window that the next one covers too. windows: at a time.
        mirror: average over mirror images in validation and test.
        tolerance: mm that a surface may be away and still count for NSD.
        distances: measure NSD and HD95 in the test. validation_distances: in validation too.
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
        validation_distances: bool = False,
        worst: Count = 4,
        auxiliary: Weight = 1.0,
    ):
        super().__init__(model, describe, auxiliary)
        self.dice, self.cross_entropy, self.deep_supervision = dice, cross_entropy, deep_supervision
        self.overlap, self.windows, self.mirror = overlap, int(windows), mirror
        self.tolerance, self.worst = tolerance, worst
        self.distances = {"val": validation_distances, "test": distances}
        self.classes = [str(name) for name in self.describe["classes"]][1:]
        regions = self.describe.get("regions") or None
        self.regions = None if regions is None else [list(members) for members in regions.values()]
        self.names = self.classes if regions is None else list(map(str, regions))
        self.metrics = nn.ModuleDict({stage: self._new_metrics(stage) for stage in ("val", "test")})
        self._drawn: list[tuple[float, list[np.ndarray]]] = []
        self._tested, self._fitted = 0, False

    def _new_metrics(self, stage: str) -> nn.ModuleDict:
        kinds = ("dice", "nsd", "hd95") if self.distances[stage] else ("dice",)
        names = [f"{kind}{end}" for kind in kinds for end in ("", *map(_ending, self.names))]
        # of a class that is in neither volume there is nothing to say
        return nn.ModuleDict({name: MeanMetric(nan_strategy="ignore") for name in names})

    def step(self, batch: tuple[Tensor, Tensor], stage: str) -> tuple[Tensor, dict[str, Tensor | Metric]]:
        images, labels = batch
        if stage == "train":
            found = self.model(images)
            scales = found if isinstance(found, list | tuple) else [found]
            return self.loss(scales, labels), {
                "dice": soft_dice(scales[0].detach().float(), labels, self.regions).mean()
            }
        sums = LossSums(self.regions)
        for image, truth in zip(images, labels, strict=True):
            self._measure(self._answer(image, truth, sums), truth, image, stage)
        return sums.loss(self.dice, self.cross_entropy), dict(self.metrics[stage])

    def _answer(self, image: Tensor, truth: Tensor | None = None, sums: LossSums | None = None) -> Tensor:
        """The likeliest class of each voxel of an image (channels, *sizes), uint8 (*sizes); sums: its loss is added to them."""
        said, done = torch.empty(image.shape[1:], dtype=torch.uint8, device=image.device), 0
        for logits in logits_along(
            self.model,
            InMemory(image),
            self.describe["patch_size"],
            self.overlap,
            int(self.windows),
            self.mirror,
            image.device,
        ):
            logits, planes = logits.float(), slice(done, done + logits.shape[1])
            said[planes], done = logits.argmax(0), planes.stop
            if sums is not None:
                sums.add(logits[None], truth[None, planes])
        return said

    def loss(self, scales: Sequence[Tensor], labels: Tensor) -> Tensor:
        """Dice and cross-entropy of the logits (batch, classes, *sizes) of each scale, the finest first; a scalar."""
        weights = [self.deep_supervision**number for number in range(len(scales))]
        total = labels.new_zeros((), dtype=torch.float32)
        for weight, logits in zip(weights, scales, strict=True):
            sums = LossSums(self.regions)
            sums.add(logits.float(), resized_labels(labels, logits.shape[2:]))
            total = total + weight * sums.loss(self.dice, self.cross_entropy)
        return total / sum(weights)

    def on_fit_start(self) -> None:
        self._fitted = True

    def on_test_start(self) -> None:
        self._drawn, self._tested = [], 0
        # After training the best weights are here; weights that are tested again have their run's decision.
        if self._fitted and self.trainer.datamodule is not None:
            self._decide_parts(self.trainer.datamodule)

    def _decide_parts(self, data: Any) -> None:
        """Decides by the validation volumes of which classes the largest part alone is kept, and writes that beside the plan."""
        classes, limit = len(self.classes), self.trainer.limit_val_batches
        gain = torch.zeros(classes, dtype=torch.float64)
        for images, labels in islice(data.val_dataloader(), limit if isinstance(limit, int) else None):
            images = images.to(next(self.model.parameters(), images))  # the model's device and precision
            for image, truth in zip(images, labels.to(self.device), strict=True):
                said, truth = self._known(self._answer(image), truth)
                parts = torch.from_numpy(largest_parts(said.cpu().numpy().copy(), range(1, classes + 1))).to(said)
                gain += (dice_of(parts, truth, classes) - dice_of(said, truth, classes)).nan_to_num(0.0).cpu()
        gain = self.all_gather(gain).view(-1, classes).sum(0)
        data.keep_largest([name for name, more in zip(self.classes, gain.tolist(), strict=True) if more > 0])
        if self.trainer.is_global_zero:
            data.keep(Path(self.trainer.default_root_dir) / "data")

    def pictures(self, stage: str, batch: Any = None) -> Mapping[str, Figure | str]:
        if stage == "train":
            images, labels = (each[:6].cpu() for each in batch)
            cases = [("", pictures_of(image, truth)) for image, truth in zip(images, labels, strict=True)]
            first = draw_cases(cases, self.classes, f"First training batch: {len(batch[0])} patches")
            return {"first_batch": first, **self._scan_drawn()}
        if stage == "val" or not self._drawn:
            return {}
        measured = {name: float(metric.compute()) for name, metric in self.metrics["test"].items()}
        cases = [(f"Dice {dice:.3f}", pictures) for dice, pictures in self._drawn]
        return {
            "worst_predictions": draw_cases(
                cases, self.classes, f"Worst of {self._tested} test volumes: image, truth, answer"
            ),
            "classes": draw_bars([measured[f"dice{_ending(name)}"] for name in self.names], self.names),
        }

    def _scan_drawn(self) -> dict[str, Figure]:
        """The walk of the Mamba layers over the volume."""
        walked = (getattr(module, "scan", None) for module in self.model.modules())
        scan = next((each for each in walked if isinstance(each, scans.Scan)), None)
        grids = [grid for grid in getattr(self.model, "grids", None) or () if as_grid(grid).length <= DRAWN]
        return {"scan": scans.draw_stages(scan, grids)} if scan is not None and grids else {}

    @staticmethod
    def _known(said: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """Both as uint8, with background where nothing is known."""
        known = truth != IGNORED
        return said * known, (truth * known).to(torch.uint8)

    def _measured(self, said: Tensor, truth: Tensor, distances: bool) -> dict[str, Tensor]:
        """Dice, and where they are wanted NSD and HD95, of each class or region of two label volumes."""
        if self.regions is not None:
            parts = zip(in_regions(said, self.regions), in_regions(truth, self.regions), strict=True)
            found = [self._of_classes(one, other, 1, distances) for one, other in parts]
            return {kind: torch.cat([each[kind] for each in found]) for kind in found[0]}
        return self._of_classes(said, truth, len(self.classes), distances)

    def _of_classes(self, said: Tensor, truth: Tensor, classes: int, distances: bool) -> dict[str, Tensor]:
        found = {"dice": dice_of(said, truth, classes)}
        if distances:
            spacing = self.describe.get("spacing") or (1.0,) * said.dim()
            found["nsd"], found["hd95"] = distances_of(said, truth, classes, spacing, self.tolerance)
        return found

    def _measure(self, said: Tensor, truth: Tensor, image: Tensor, stage: str) -> None:
        """One volume, (*sizes) each, into the metrics of a stage."""
        said, truth = self._known(said, truth)
        found = self._measured(said, truth, self.distances[stage])
        metrics = self.metrics[stage]
        for kind, values in found.items():
            metrics[kind].update(values.nanmean())
            for name, value in zip(self.names, values, strict=True):
                metrics[f"{kind}{_ending(name)}"].update(value)
        if stage == "test":
            self._tested += 1
            dice = float(found["dice"].nan_to_num(1.0).mean())
            if len(self._drawn) < self.worst or (self.worst and dice < self._drawn[-1][0]):
                # the slices alone: volumes would fill memory
                self._drawn.append((dice, pictures_of(image, truth, said)))
                self._drawn = sorted(self._drawn, key=lambda each: each[0])[: self.worst]


def _ending(name: str) -> str:
    return "_" + "".join(letter if letter.isalnum() else "_" for letter in name)
