"""Image classification: cross-entropy, label smoothing, Mixup and CutMix, top-1 and top-5 accuracy, two pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from ...core.errors import UserError
from ...core.ranges import Count, Rate, Share, Weight, checked
from ..task import Task
from .image_grid import INK, RIGHT, WRONG, denormalise, draw_grid, even_columns, shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXPLAINED = 16  # test images in the picture of what answers rest on


class Classification(Task):
    """One label an image.

    Batches are images (batch, channels, height, width) and labels (batch) int64; the model returns logits
    (batch, classes).

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
    """

    monitor: ClassVar[tuple[str, str]] = ("val/accuracy", "max")

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
    ):
        super().__init__(model, describe, auxiliary)
        self.classes = self.describe.get("num_classes") or len(self.describe["classes"])
        self.label_smoothing = label_smoothing
        self.mixing = None
        if mixup > 0 or cutmix > 0:
            from timm.data.mixup import Mixup

            self.mixing = Mixup(
                mixup, cutmix, None, mix_probability, cutmix_share, "batch", True, label_smoothing, self.classes
            )
        self.metrics = nn.ModuleDict({stage: self._new_metrics() for stage in ("val", "test")})
        self.worst = Worst(worst)

    def _new_metrics(self) -> nn.ModuleDict:
        top = {"accuracy": 1, "accuracy_top5": 5} if self.classes > 5 else {"accuracy": 1}
        return nn.ModuleDict(
            {name: MulticlassAccuracy(self.classes, k, average="micro", validate_args=False) for name, k in top.items()}
        )

    def measure(self, batch: tuple[Tensor, Tensor], stage: str) -> tuple[Tensor, dict[str, Tensor | Metric]]:
        images, labels = batch
        if stage == "train":
            return self._train(images, labels)
        logits = self.model(images).float()
        losses = F.cross_entropy(logits, labels, reduction="none")
        for metric in self.metrics[stage].values():
            metric.update(logits, labels)
        if stage == "test":
            self.worst.add(losses, images, labels, logits)
        return losses.mean(), dict(self.metrics[stage])

    def _train(self, images: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        if self.mixing is None:
            logits = self.model(images).float()
            loss = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        else:
            images, labels = self.mix(images, labels)
            logits = self.model(images).float()
            loss = F.cross_entropy(logits, labels)
            labels = labels.argmax(1)
        return loss, {"accuracy": (logits.detach().argmax(1) == labels).float().mean()}

    def mix(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mixes a batch with its own reverse (Mixup or CutMix).

        Args:
            images: (batch, channels, height, width); left as they are.
            labels: (batch) int64.

        Returns:
            mixed images, of the same shape, and targets (batch, classes) with the label smoothing in them. Of an odd
            batch the last image stays unmixed (timm mixes pairs).
        """
        from timm.data.mixup import mixup_target

        even = len(images) // 2 * 2
        mixed = images.clone()
        parts = []
        if even:
            _, target = self.mixing(mixed[:even], labels[:even])
            parts.append(target)
        if even < len(images):
            parts.append(mixup_target(labels[even:], self.classes, 1.0, self.label_smoothing))
        return mixed, torch.cat(parts)

    def on_test_start(self) -> None:
        self.worst.clear()

    def first_batch(self, batch: tuple[Tensor, Tensor]) -> Figure:
        """Draws up to 32 images of a training batch, mixed where the task mixes, under the names of their labels."""
        images, labels = batch
        count = min(32, len(images))
        if self.mixing is None:
            targets = F.one_hot(labels[:count], self.classes).float()
        else:
            # Drawing must not move the random numbers that training sees.
            state = np.random.get_state()  # noqa: NPY002  timm draws from the global generator
            images, targets = self.mix(images, labels)
            np.random.set_state(state)  # noqa: NPY002
        titles = [self._title(target) for target in targets[:count].cpu()]
        height, width = images.shape[-2:]
        heading = f"First training batch: {count} of {len(images)} images, {height} × {width}"
        return draw_grid(self._visible(images[:count]), titles, heading)

    def worst_predictions(self) -> Figure | None:
        """Draws the test images with the highest loss: true class, predicted class, confidence in both, loss."""
        entries = self.worst.entries
        if not entries:
            return None
        titles, colours = [], []
        for entry in entries:
            right = entry["true"] == entry["predicted"]
            true, said = (shorten(self._name(entry[which]), 13) for which in ("true", "predicted"))
            titles.append(f"is {true} ({entry['true_confidence']:.0%})\nsaid {said} ({entry['confidence']:.0%})")
            colours.append(RIGHT if right else WRONG)
        heading = f"Worst of {self.worst.seen:,} test images: class, prediction (confidence)"
        return draw_grid(self._visible(torch.stack([entry["image"] for entry in entries])), titles, heading, colours)

    def explain(self, method: str, prompt: str, batch: Callable[[], Any]) -> tuple[Figure, str] | None:
        """Draws test images and, beside each, what its likeliest class rests on; None for models without hidden attention."""
        if not hasattr(self.model, "answering"):
            return None
        if prompt:
            raise UserError("this model looks at images", given=f"prompt={prompt}", do="leave prompt= out")
        from .explanation import beside_heat, explain_images

        images, labels = batch()
        images, labels = images[:EXPLAINED], labels[:EXPLAINED].cpu()
        found = explain_images(self.model, images, method)
        confidences, said = (t.cpu() for t in found.logits.float().softmax(1).max(1))
        titles, colours = [], []
        for label, guess, confidence in zip(labels.tolist(), said.tolist(), confidences.tolist(), strict=True):
            titles += [
                f"is {shorten(self._name(label), 13)}",
                f"said {shorten(self._name(guess), 13)} ({confidence:.0%})",
            ]
            colours += [INK, RIGHT if guess == label else WRONG]
        pictures = beside_heat(self._visible(images), found.weights, self.model.grid)
        figure = draw_grid(
            pictures, titles, f"{method}: what the answers rest on", colours, columns=2 * even_columns(len(images), 4)
        )
        return figure, f"{int((said == labels).sum())} of {len(labels)} test images right"

    def _visible(self, images: Tensor) -> Tensor:
        return denormalise(images, self.describe.get("mean"), self.describe.get("std"))

    def _name(self, index: int) -> str:
        classes = self.describe.get("classes")
        return str(classes[index]) if classes else f"class {index}"

    def _title(self, target: Tensor) -> str:
        weights, indices = target.topk(min(2, self.classes))
        # Label smoothing leaves a little on every class; only a second image's class is worth a line.
        if len(weights) < 2 or weights[1] <= self.label_smoothing / self.classes + 1e-3:
            return shorten(self._name(int(indices[0])))
        return "\n".join(
            f"{shorten(self._name(int(i)), 11)} {float(w):.0%}" for w, i in zip(weights, indices, strict=True)
        )


class Worst:
    """Keeps the samples with the highest loss seen since the last `clear`, on the CPU.

    Args:
        count: how many.

    Attributes:
        seen: samples shown since the last `clear`.
        entries: dicts of "loss", "image" (channels, height, width), "true", "predicted", "confidence" (in the predicted
            class), "true_confidence"; highest loss first.
    """

    def __init__(self, count: int):
        self.count = count
        self.seen = 0
        self.entries: list[dict[str, Any]] = []

    def clear(self) -> None:
        self.seen, self.entries = 0, []

    def add(self, losses: Tensor, images: Tensor, labels: Tensor, logits: Tensor) -> None:
        """Takes a batch: losses, labels (batch), images (batch, channels, height, width), logits (batch, classes)."""
        self.seen += len(losses)
        if self.count == 0:
            return
        losses = losses.nan_to_num(nan=float("inf"))
        chosen = losses.topk(min(self.count, len(losses))).indices
        probabilities = logits[chosen].softmax(1)
        confidence, predicted = probabilities.max(1)
        true_confidence = probabilities.gather(1, labels[chosen, None]).squeeze(1)
        columns = [losses[chosen], labels[chosen], predicted, confidence, true_confidence]
        pictures = images[chosen].cpu()
        for image, *numbers in zip(pictures, *(column.tolist() for column in columns), strict=True):
            loss, true, guess, sure, truth = numbers
            self.entries.append(
                {
                    "loss": loss,
                    "image": image,
                    "true": true,
                    "predicted": guess,
                    "confidence": sure,
                    "true_confidence": truth,
                }
            )
        self.entries = sorted(self.entries, key=lambda entry: -entry["loss"])[: self.count]
