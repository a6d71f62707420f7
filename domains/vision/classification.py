"""Image classification: cross-entropy, label smoothing, Mixup and CutMix, top-1 and top-5 accuracy, two pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from ...core.pictures import RIGHT, WRONG
from ...core.ranges import Count, Positive, Rate, Share, Weight, checked
from ..classification import Classifying, share_right
from .distillation import Distillation
from .film import strip
from .image_grid import denormalise, draw_grid, shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Classification(Classifying):
    """One label an image.

    Batches are images (batch, channels, height, width), or videos (batch, channels, frames, height, width), and labels (batch)
    int64; the model returns logits (batch, classes).

    Args:
        model: the network.
        describe: of the data: "num_classes" (or "classes"), and for the pictures "classes", "mean", "std".
        label_smoothing: share of the target spread evenly over all classes, from 0 to below 1 (Szegedy et al. 2016).
        mixup: alpha of Mixup's beta distribution; 0: none (Zhang et al. 2018).
        cutmix: alpha of CutMix's; 0: none (Yun et al. 2019). With both, each batch draws one of them.
        mix_probability: share of the batches that are mixed.
        cutmix_share: with both, share of the mixed batches that get CutMix.
        worst: number of test samples in the picture of the worst predictions; 0: none.
        auxiliary: weight of what the model itself wants added to the loss (a mixture of experts' balance).
        teacher: a trained model that a part of the loss is held against (distillation.Distillation); None: none.
        distillation, distillation_weight, temperature: how (kind, weight and temperature there).
    """

    @checked(group="task")
    def __init__(
        self,
        model: nn.Module,
        describe: Mapping[str, Any],
        label_smoothing: Rate = 0.0,
        mixup: Weight = 0.0,
        cutmix: Weight = 0.0,
        mix_probability: Share = 1.0,
        cutmix_share: Share = 0.5,
        worst: Count = 24,
        auxiliary: Weight = 1.0,
        teacher: str | None = None,
        distillation: Literal["soft", "hard"] = "hard",
        distillation_weight: Share = 0.5,
        temperature: Positive = 1.0,
    ):
        super().__init__(model, describe, label_smoothing, worst, auxiliary)
        self.distillation = None
        if teacher is not None:
            self.distillation = Distillation(teacher, distillation, distillation_weight, temperature, self.describe)
            # A model with a head for what a teacher says answers with both in training.
            getattr(model, "set_distilled_training", lambda enable: None)(True)
        self.mixing = None
        if mixup > 0 or cutmix > 0:
            from timm.data.mixup import Mixup

            self.mixing = Mixup(
                mixup, cutmix, None, mix_probability, cutmix_share, "batch", True, label_smoothing, self.num_classes
            )

    def more_metrics(self) -> dict[str, Metric]:
        if self.num_classes <= 5:
            return {}
        return {"accuracy_top5": MulticlassAccuracy(self.num_classes, 5, average="micro", validate_args=False)}

    def step(self, batch: tuple[Tensor, Tensor], stage: str) -> tuple[Tensor, dict[str, Tensor | Metric]]:
        if stage != "train" or (self.mixing is None and self.distillation is None):
            return super().step(batch, stage)
        images, targets = batch if self.mixing is None else self.mix(*batch)
        said = self.model(images)
        logits, taught = (each.float() for each in (said if isinstance(said, tuple) else (said, said)))
        labels = targets if self.mixing is None else targets.argmax(1)
        # What is mixed has the label smoothing in its targets.
        loss = F.cross_entropy(logits, targets, label_smoothing=self.label_smoothing if self.mixing is None else 0.0)
        if self.distillation is not None:
            loss = self.distillation.loss(loss, taught, images)
        return loss, {"accuracy": share_right(logits, labels)}

    def on_fit_start(self) -> None:
        """A teacher that is not there is missed before training begins."""
        if self.distillation is not None:
            self.distillation.teacher.to(self.device)

    def mix(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mixes a batch with its own reverse (Mixup or CutMix).

        Args:
            images: (batch, channels, [frames,] height, width); left as they are.
            labels: (batch) int64.

        Returns:
            mixed images, of the same shape, and targets (batch, classes) with the label smoothing in them. Of an odd
            batch the last image stays unmixed (timm mixes pairs).
        """
        from timm.data.mixup import mixup_target

        even, shape = len(images) // 2 * 2, images.shape
        # of a video all frames alike
        mixed = images.clone().flatten(1, -3)
        parts = []
        if even:
            _, target = self.mixing(mixed[:even], labels[:even])
            parts.append(target)
        if even < len(images):
            parts.append(mixup_target(labels[even:], self.num_classes, 1.0, self.label_smoothing))
        return mixed.view(shape), torch.cat(parts)

    def kept(self, batch: tuple[Tensor, Tensor], positions: Tensor) -> Tensor:
        return batch[0][positions].cpu()

    def draw_batch(self, batch: tuple[Tensor, Tensor]) -> Figure:
        """Draws up to 32 images of a training batch, mixed where the task mixes, under the names of their labels."""
        images, labels = batch
        count = min(32, len(images))
        if self.mixing is None:
            targets = F.one_hot(labels[:count], self.num_classes).float()
        else:
            # Drawing must not move the random numbers that training sees.
            state = np.random.get_state()  # noqa: NPY002  timm draws from the global generator
            images, targets = self.mix(images, labels)
            np.random.set_state(state)  # noqa: NPY002
        titles = [self._title(target) for target in targets[:count].cpu()]
        height, width = images.shape[-2:]
        heading = f"First training batch: {count} of {len(images)} images, {height} × {width}"
        return draw_grid(self.visible(images[:count]), titles, heading)

    def draw_worst(self) -> Figure:
        """Draws the test images with the highest loss: true class, predicted class, confidence in both, loss."""
        titles, colours = [], []
        for entry in self.worst.entries:
            right = entry["true"] == entry["predicted"]
            true, said = (shorten(self.name_of(entry[which]), 13) for which in ("true", "predicted"))
            titles.append(f"is {true} ({entry['true_confidence']:.0%})\nsaid {said} ({entry['confidence']:.0%})")
            colours.append(RIGHT if right else WRONG)
        heading = f"Worst of {self.worst.seen:,} test images: class, prediction (confidence)"
        images = torch.stack([entry["sample"] for entry in self.worst.entries])
        return draw_grid(self.visible(images), titles, heading, colours)

    def visible(self, images: Tensor) -> Tensor:
        """Images (batch, channels, height, width) as they were before they were normalised, within 0 and 1; of videos strips."""
        images = strip(images) if images.dim() == 5 else images
        return denormalise(images, self.describe.get("mean"), self.describe.get("std"))

    def _title(self, target: Tensor) -> str:
        weights, indices = target.topk(min(2, self.num_classes))
        # Label smoothing leaves a little on every class; only a second image's class is worth a line.
        if len(weights) < 2 or weights[1] <= self.label_smoothing / self.num_classes + 1e-3:
            return shorten(self.name_of(int(indices[0])))
        return "\n".join(
            f"{shorten(self.name_of(int(i)), 11)} {float(w):.0%}" for w, i in zip(weights, indices, strict=True)
        )
