"""What a recommender minimises, at events whose next item is known."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from .models.sequential import Recommender
from .softmax import cross_entropy

CELLS = 2**25  # scores that are held at once
LossName = Literal["full", "sampled", "bce"]


def full(model: Recommender, hidden: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy over all items, a scalar; where the table of scores is large, a part of the events at a time.

    Args:
        hidden: (events, channels). targets: (events,) int64.
    """
    if (factors := model.factors(hidden)) is not None:
        left, right = factors
        return cross_entropy(left, right[1:], targets - 1)

    def summed(hidden: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(model.scores(hidden)[:, 1:].float(), targets - 1, reduction="sum")

    tall = max(1, CELLS // (model.items + 1))
    if len(targets) <= tall:
        return summed(hidden, targets) / len(targets)
    parts = zip(hidden.split(tall), targets.split(tall), strict=True)
    return sum(checkpoint(summed, *part, use_reentrant=False) for part in parts) / len(targets)


def sampled(model: Recommender, hidden: Tensor, targets: Tensor, negatives: int) -> Tensor:
    """Softmax over the target and some other items, shared by all events; arguments as of `full`.

    Negatives are drawn evenly; each stands for items / negatives of them, which its score is corrected by (Bengio and Senécal
    2008), so that with many the loss is that of all items. One that is the target itself does not count.
    """
    drawn = torch.randint(1, model.items + 1, (negatives,), device=hidden.device)
    unique, place = targets.unique(return_inverse=True)
    own = _of_each(model, hidden, unique, place)
    others = model.scores(hidden, drawn).float() + torch.log(torch.tensor((model.items - 1) / negatives))
    others = others.masked_fill(drawn == targets[:, None], -torch.inf)
    return (torch.logsumexp(torch.cat([own, others], 1), 1) - own[:, 0]).mean()


def bce(model: Recommender, hidden: Tensor, targets: Tensor, negatives: int) -> Tensor:
    """Whether the target comes next, and whether each of some other items drawn for the event does (SASRec's with one).

    Args:
        hidden, targets: as of `full`. negatives: of each event.
    """
    drawn = torch.randint(1, max(model.items, 2), (len(targets), negatives), device=hidden.device)
    drawn = (drawn + (drawn >= targets[:, None])).clamp_max(model.items)
    unique, place = torch.cat([targets[:, None], drawn], 1).unique(return_inverse=True)
    scores = _of_each(model, hidden, unique, place)
    return F.softplus(-scores[:, 0]).mean() + F.softplus(scores[:, 1:]).mean()


def _of_each(model: Recommender, hidden: Tensor, items: Tensor, place: Tensor) -> Tensor:
    """(events, asked) scores of each event's own items: items[place], place of (events,) or (events, asked)."""
    place = place.reshape(len(hidden), -1)
    tall = max(1, CELLS // len(items))
    parts = zip(hidden.split(tall), place.split(tall), strict=True)
    return torch.cat([model.scores(part, items).float().gather(1, where) for part, where in parts])
