"""Dice and cross-entropy of labelled maps, of a whole batch at once or added up part after part."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

IGNORED = 255  # a label that is neither learnt nor counted
SMOOTH = 1e-5


class LossSums:
    """What the loss of a batch or a volume is made of; parts of it (patches, planes) are added one by one.

    Args:
        regions: the classes that each Dice is of together; None: each class but the background by itself.
    """

    def __init__(self, regions: Sequence[Sequence[int]] | None = None) -> None:
        self._regions = regions
        self._entropy: Tensor | float = 0.0
        self._known: Tensor | int = 0
        self._both: Tensor | float = 0.0
        self._all: Tensor | float = 0.0

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """logits: (batch, classes, *sizes). labels: (batch, *sizes), 255 where nothing is known."""
        self._entropy = self._entropy + F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")
        self._known = self._known + (labels != IGNORED).sum()
        both, all_ = dice_parts(logits, labels, self._regions)
        self._both, self._all = self._both + both, self._all + all_

    def loss(self, dice: float, cross_entropy: float) -> Tensor:
        """The weighted sum of the mean cross-entropy and of what Dice, the mean over the classes, lacks of one."""
        soft = (2 * self._both + SMOOTH) / (self._all + SMOOTH)
        return cross_entropy * (self._entropy / self._known.clamp(min=1)) + dice * (1 - soft.mean())


def dice_parts(logits: Tensor, labels: Tensor, regions: Sequence[Sequence[int]] | None = None) -> tuple[Tensor, Tensor]:
    """Of each region what truth and probabilities share, and what both have, (regions,) each.

    Args:
        regions: classes that belong together, whose probabilities are added; None: each class but the background by itself.
    """
    classes, known = logits.shape[1], labels != IGNORED
    truth = F.one_hot(torch.where(known, labels, 0), classes).movedim(-1, 1)
    likely = logits.softmax(1)
    if regions is None:
        truth, likely = truth[:, 1:], likely[:, 1:]
    else:
        truth, likely = (
            torch.stack([each[:, list(members)].sum(1) for members in regions], 1) for each in (truth, likely)
        )
    truth, likely = truth * known[:, None], likely * known[:, None]
    around = (0, *range(2, logits.dim()))
    return (likely * truth).sum(around), likely.sum(around) + truth.sum(around)


def soft_dice(logits: Tensor, labels: Tensor, regions: Sequence[Sequence[int]] | None = None) -> Tensor:
    """Dice of the probabilities of each class but the background (or of each region), over a whole batch: (classes - 1,).

    Args:
        logits: (batch, classes, *sizes). labels: (batch, *sizes), 255 where nothing is known. regions: see dice_parts.
    """
    both, all_ = dice_parts(logits, labels, regions)
    return (2 * both + SMOOTH) / (all_ + SMOOTH)


def resized_labels(labels: Tensor, sizes: Sequence[int]) -> Tensor:
    """(batch, *sizes) -> (batch, *other sizes), each the label nearest to it."""
    if tuple(labels.shape[1:]) == tuple(sizes):
        return labels
    return F.interpolate(labels[:, None].float(), size=tuple(sizes), mode="nearest-exact")[:, 0].long()
